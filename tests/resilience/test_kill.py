"""A few of the kills of `python -m tests.resilience.kill`; each test is a process of its own, which may fork."""

import subprocess
import sys
from pathlib import Path

import pytest

from plume_export.bundle import Bundle


def kill(directory: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "tests.resilience.kill", "--directory", directory, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("command", ["embed", "search"])
@pytest.mark.slow
def test_killed_at_random(tmp_path: Path, tiny_cpu: Bundle, command: str) -> None:
    kill(tmp_path, "--command", command, "--count", "3", "--inputs", "40", "--compiled", tiny_cpu.path)


@pytest.mark.long
@pytest.mark.parametrize("command", ["build", "export", "compile", "embed", "search"])
def test_killed_more_often(tmp_path: Path, command: str) -> None:
    kill(tmp_path, "--command", command, "--count", "20")
