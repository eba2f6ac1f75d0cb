"""What `embed` says of a run that is stopped."""

import json
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("is_piped", [False, True])
def test_a_file_and_a_pipe_without_an_input_are_said_in_one_line(is_piped: bool, tiny_cpu: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    inputs = "-" if is_piped else tmp_path / "in.jsonl"
    arguments = ["embed", tiny_cpu.path, "--input", inputs, "-o", tmp_path / "out.npy", "--quiet"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input="\n")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"warning: {'standard input' if is_piped else inputs} contains no inputs; the output is empty\n"
    assert np.load(tmp_path / "out.npy").shape == (0, tiny_cpu.manifest.model.decoder.hidden)


def test_blank_lines_are_told(tiny_cpu: Bundle) -> None:
    command, lines = ["embed", str(tiny_cpu.path), "--input", "-"], '{"text": "a"}\n\n \n{"text": "b"}\n'
    assert CliRunner().invoke(main, command, input=lines).stderr == "2 embedded, 2 blank lines ignored\n"
    found = json.loads(CliRunner().invoke(main, [*command, "--json"], input=lines).stdout)
    assert (found["embedded"], found["blank_lines"]) == (2, 2)
