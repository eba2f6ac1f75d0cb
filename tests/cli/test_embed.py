"""What `embed` says of a run that is stopped."""

from pathlib import Path

import pytest

from plume_export.cli.embed import _hint_to_resume


def test_a_stopped_run_with_a_damaged_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".out.npy.partial").touch()
    (tmp_path / ".out.npy.partial.jsonl").write_text("damaged\n")
    with pytest.raises(KeyboardInterrupt), _hint_to_resume(tmp_path / "out.npy"):
        raise KeyboardInterrupt
    assert "journal of what was done is damaged; the same command with --restart" in capsys.readouterr().err


def test_a_link_in_the_place_of_its_rows_hides_no_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / ".out.npy.partial").symlink_to("elsewhere")
    with pytest.raises(KeyboardInterrupt), _hint_to_resume(tmp_path / "out.npy"):
        raise KeyboardInterrupt
