"""What stands on stderr beside a result."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from plume_export.cli import main
from plume_export.cli.messages import note, report_step, warn
from plume_export.cli.switches import command
from plume_export.progress import detail_of


@command()
def talk() -> None:
    """Say one thing of every kind."""
    note("a note")
    report_step("a step")
    detail_of(report_step)("a detail")
    warn("a warning")


@pytest.mark.parametrize(
    ("switches", "lines"),
    [
        ([], ["a note", "0:00 a step", "warning: a warning"]),
        (["-v"], ["a note", "0:00 a step", "0:00   a detail", "warning: a warning"]),
        (["-q"], ["warning: a warning"]),
        (["--json"], ['{"warning":{"message":"a warning"}}']),
    ],
)
def test_what_the_switches_let_through(switches: list[str], lines: list[str]) -> None:
    assert CliRunner().invoke(talk, switches).stderr.splitlines() == lines


@pytest.mark.slow
def test_a_build_says_little(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["build", "--target", "cpu", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert len(lines) <= 10
    assert lines[0].startswith("using plume-tiny")
    assert all(re.fullmatch(r"\d+:\d\d \S.*", line) for line in lines[1:]), lines
    assert lines[-1].endswith("done")
