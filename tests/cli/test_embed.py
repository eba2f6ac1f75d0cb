"""What `embed` says of a run that is stopped."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.cli.embed import _hint_to_resume


def test_a_stopped_run_with_a_damaged_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".out.npy.partial").touch()
    (tmp_path / ".out.npy.partial.jsonl").write_text("damaged\n")
    with pytest.raises(KeyboardInterrupt), _hint_to_resume(tmp_path / "out.npy"):
        raise KeyboardInterrupt
    assert "journal of the finished inputs is corrupt; repeat the command with --restart" in capsys.readouterr().err


def test_a_link_in_the_place_of_its_rows_hides_no_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / ".out.npy.partial").symlink_to("elsewhere")
    with pytest.raises(KeyboardInterrupt), _hint_to_resume(tmp_path / "out.npy"):
        raise KeyboardInterrupt


def test_a_file_without_an_input_is_said_in_one_line(tiny_cpu: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    arguments = ["embed", tiny_cpu.path, "--input", tmp_path / "in.jsonl", "-o", tmp_path / "out.npy", "--quiet"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"warning: {tmp_path / 'in.jsonl'} has no input; the output is empty\n"
