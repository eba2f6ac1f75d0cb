"""The runtime as aarch64, emulated: what every edge device runs."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

_RUN = Path(__file__).with_name("run.sh")
_TOOLS = ("qemu-aarch64-static", "debootstrap", "dpkg-deb", "apt-get")


@pytest.mark.long
def test_every_core_agrees_with_this_machine() -> None:
    missing = [tool for tool in _TOOLS if which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install qemu-user-static debootstrap")
    done = subprocess.run([_RUN], env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to(str(which("dirname")))
    (tmp_path / "id").symlink_to(str(which("id")))
    done = subprocess.run(
        [str(which("bash")), _RUN, tmp_path / "cache"],
        env={"PATH": str(tmp_path), "PYTHON": "no-python"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    for tool in _TOOLS:
        assert f"missing: {tool}\n" in done.stderr
    assert "missing: a PYTHON with plume-export[export,cpu]\n" in done.stderr
    assert "apt-get install qemu-user-static debootstrap" in done.stderr
    assert not (tmp_path / "cache").exists()
