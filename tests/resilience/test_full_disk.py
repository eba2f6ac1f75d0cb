"""Some of what `python -m tests.resilience.full_disk` does; each test is a process of its own, which may fork."""

import subprocess
import sys
from pathlib import Path

import pytest

from plume_export.bundle import Bundle


def fail(directory: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "tests.resilience.full_disk", "--directory", directory, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(directory.iterdir()) == []


@pytest.mark.slow
def test_search_on_a_full_disk(tmp_path: Path, tiny_cpu: Bundle) -> None:
    arguments = ("--command", "search", "--count", "3", "--inputs", "20", "--compiled", tiny_cpu.path)
    fail(tmp_path, *arguments)


@pytest.mark.slow
def test_compile_on_a_full_disk(tmp_path: Path, tiny_fp16: Bundle) -> None:
    fail(tmp_path, "--command", "compile", "--way", "file-size", "--count", "2", "--portable", tiny_fp16.path)


@pytest.mark.long
@pytest.mark.parametrize("command", ["build", "export", "compile", "embed", "search", "calibrate", "sample-data"])
def test_more_places(tmp_path: Path, command: str) -> None:
    fail(tmp_path, "--command", command)
