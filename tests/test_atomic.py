"""A directory is written whole or not at all, by one process at a time, whenever the writer is killed."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from plume_export.atomic import put_in_place, scratch_directory
from plume_export.errors import PlumeExportError

# Replaces sys.argv[1], and kills itself after as many renames as sys.argv[2] says.
KILLED_AFTER_RENAMES = """
import os, pathlib, signal, sys
from plume_export.atomic import put_in_place, scratch_directory
output, left, rename = pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path.rename

def counted(self, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(self, target)

pathlib.Path.rename = counted
with scratch_directory(output) as scratch:
    (scratch / "new").mkdir()
    (scratch / "new" / "text").write_text("new")
    put_in_place(scratch / "new", output, scratch)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "text").write_text("old")
    return tmp_path / "output"


def write(output: Path, text: str, report: Callable[[str], None] = lambda _: None) -> None:
    with scratch_directory(output, report) as scratch:
        (scratch / "new").mkdir()
        (scratch / "new" / "text").write_text(text)
        put_in_place(scratch / "new", output, scratch)


def kill_after_renames(output: Path, renames: int) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_RENAMES, str(output), str(renames)], check=False)
    assert killed.returncode == -9


def test_a_directory_is_replaced_and_nothing_stays_beside_it(output: Path) -> None:
    write(output, "new")
    assert (output / "text").read_text() == "new"
    assert os.listdir(output.parent) == ["output"]


def test_a_new_directory_has_the_permissions_of_any(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    write(tmp_path / "a" / "output", "new")
    assert (tmp_path / "a" / "output").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("renames", range(4))
def test_a_killed_writer_loses_nothing(output: Path, renames: int) -> None:
    kill_after_renames(output, renames)
    said: list[str] = []
    with scratch_directory(output, said.append, is_whole=lambda directory: (directory / "text").is_file()):
        assert (output / "text").read_text() == ("old" if renames < 2 else "new")
    assert os.listdir(output.parent) == ["output"]
    assert [line.split()[0] for line in said] == (["restored", "removed"] if renames == 1 else ["removed"])


def test_what_a_killed_writer_left_is_named(output: Path) -> None:
    (output.parent / ".output.partial-abcd_123").mkdir()
    (output.parent / ".output.lock").touch()
    said: list[str] = []
    write(output, "new", said.append)
    assert said == ["removed .output.partial-abcd_123: leftovers of a build that was killed"]
    assert os.listdir(output.parent) == ["output"]


def test_hidden_names_of_other_outputs_stay(output: Path) -> None:
    others = [".output.partial-b.partial-abcd_123", ".output2.partial-abcd_123", ".output.partial-abcd_1234", ".output.lock2"]
    for name in others:
        (output.parent / name).mkdir()
    write(output, "new")
    assert sorted(os.listdir(output.parent)) == sorted([*others, "output"])


def test_a_second_writer_is_refused(output: Path) -> None:
    with (
        scratch_directory(output) as scratch,
        pytest.raises(PlumeExportError, match="being written by another process"),
        scratch_directory(output),
    ):
        pass
    assert not scratch.exists()
    write(output, "new")


def test_a_second_process_is_refused(output: Path) -> None:
    with scratch_directory(output) as scratch:
        command = [sys.executable, "-c", KILLED_AFTER_RENAMES, str(output), "9"]
        second = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "being written by another process" in second.stderr
        assert scratch.is_dir()
    assert (output / "text").read_text() == "old"


def test_of_many_threads_one_writes_at_a_time(output: Path) -> None:
    refused: list[str] = []
    inside: list[int] = []

    def run() -> None:
        for _ in range(50):
            try:
                with scratch_directory(output):
                    inside.append(1)
                    assert len(inside) == 1
                    inside.pop()
            except PlumeExportError as error:
                refused.append(error.message)

    threads = [Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not inside
    assert all("another process" in message for message in refused)
    assert os.listdir(output.parent) == ["output"]


@pytest.mark.parametrize("fails_at", range(4))
def test_a_failed_fsync_changes_nothing(output: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """Of the file, its directory, and the directory that holds the output."""
    calls = 0

    def fsync(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls > fails_at:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    if fails_at < 3:
        with pytest.raises(PlumeExportError, match=r"output cannot be written: Input/output error"):
            write(output, "new")
    else:
        write(output, "new")
    assert (output / "text").read_text() == ("old" if fails_at < 3 else "new")
    assert os.listdir(output.parent) == ["output"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_a_directory(output: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) or refuses_files:
            raise OSError(number, os.strerror(number))

    refuses_files = False
    monkeypatch.setattr(os, "fsync", fsync)
    write(output, "new")
    assert (output / "text").read_text() == "new"
    refuses_files = True
    with pytest.raises(PlumeExportError, match="cannot be written"):
        write(output, "newer")


@pytest.mark.parametrize("name", ["EXDEV", "EINVAL", "ENOENT", "ESTALE", "EOPNOTSUPP"])
def test_errors_of_file_systems_name_the_output(output: Path, name: str) -> None:
    number = getattr(errno, name)

    def fail() -> None:
        with scratch_directory(output):
            raise OSError(number, os.strerror(number))

    with pytest.raises(PlumeExportError) as raised:
        fail()
    assert raised.value.message == f"{output} cannot be written: {os.strerror(number)}."


def test_a_file_that_is_missing_is_named(output: Path) -> None:
    expected = r"output cannot be written: No such file or directory: .*gone\.bin\."
    with pytest.raises(PlumeExportError, match=expected), scratch_directory(output) as scratch:
        (scratch / "gone.bin").read_bytes()


def test_a_failed_rename_puts_the_old_back(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(PlumeExportError, match="Input/output error"):
        write(output, "new")
    assert (output / "text").read_text() == "old"
    assert os.listdir(output.parent) == ["output"]


def test_parents_that_were_made_for_nothing_go(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch_directory(tmp_path / "a" / "b" / "output"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(PlumeExportError, match=r"b/output cannot be written: No space left"):
        fail()
    assert not list(tmp_path.iterdir())


def test_an_error_within_names_the_output(output: Path) -> None:
    def fail() -> None:
        with scratch_directory(output) as scratch, scratch_directory(scratch / "inner"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(PlumeExportError) as raised:
        fail()
    assert raised.value.message == f"{output} cannot be written: No space left on device."
