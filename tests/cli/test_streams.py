"""stdin, stdout and stderr as a shell may leave them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = f"{sys.executable} -m plume_export"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirection", "message"),
    [(">&-", "stdout is closed"), ("> /dev/full", "No space left on device"), ("1< /dev/null", "Bad file descriptor")],
)
def test_results_that_cannot_be_printed(redirection: str, message: str) -> None:
    result = shell(f"{PROGRAM} targets --json {redirection}")
    assert result.returncode == 1
    assert message in json.loads(result.stderr)["error"]["message"]


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_error() -> None:
    for switch in ("", "--json"):
        result = shell(f"{PROGRAM} targets {switch} | exec 0<&-")
        assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
def test_a_closed_stderr_takes_no_part_of_a_file(tmp_path: Path) -> None:
    result = shell(f"{PROGRAM} inspect {tmp_path / 'none'} 2>&-")
    assert (result.returncode, result.stdout) == (1, "")
    assert shell(f"{PROGRAM} sample-data {tmp_path / 'drawn'} <&- 2>&-").returncode == 0
    assert shell(f"{PROGRAM} inspect {tmp_path / 'none'} 2> /dev/full").returncode == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.slow
def test_names_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode("bär-象".encode() + b"-\xff")
    for switch in ("", "--json"):
        shutil.rmtree(folder, ignore_errors=True)
        command = f"{PROGRAM} sample-data {tmp_path}/$'b\\xc3\\xa4r-\\xe8\\xb1\\xa1-\\xff' {switch}"
        result = shell(command, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        if switch:
            assert json.loads(result.stdout) == {"path": str(folder)}
    assert folder.is_dir()
