"""A file appears whole, or what stood there stays."""

import errno
import os
from pathlib import Path

import pytest

from plume_export.errors import PlumeExportError
from plume_export.whole_file import replacing


def write(output: Path) -> None:
    with replacing(output) as file:
        file.write(b"new")


def test_what_stands_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("fails", ["fsync", "replace", "body"])
def test_on_an_error_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if fails != "body":
        monkeypatch.setattr(os if fails == "fsync" else Path, fails, fail)

    def attempt() -> None:
        with replacing(tmp_path / "file") as file:
            file.write(b"half")
            if fails == "body":
                fail()

    with pytest.raises(PlumeExportError, match=r"file can ?not be written: Input/output error\.\n  fix: "):
        attempt()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is whole and in its place."""
    fsync, calls = os.fsync, iter(range(9))

    def fail_second(descriptor: int) -> None:
        if next(calls) == 1:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_second)
    write(tmp_path / "file")
    assert next(calls) == 2
    assert (tmp_path / "file").read_bytes() == b"new"


def test_two_writers(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as file:
        file.write(b"first")
        with pytest.raises(PlumeExportError, match="is being written by another process"):
            write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "file") as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert sorted(os.listdir(tmp_path)) == [".file.lock", ".file.new"]
    write(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_at_the_hidden_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".file.new").symlink_to("victim")
    write(tmp_path / "file")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["file", "victim"]


@pytest.mark.parametrize("target", ["victim", "nowhere", "directory"])
def test_a_link_as_the_output_is_neither_followed_nor_replaced(tmp_path: Path, target: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").symlink_to(target)
    with pytest.raises(PlumeExportError, match=rf"file is a symbolic link to {target}; neither is replaced(.|\n)*pass "):
        write(tmp_path / "file")
    assert os.readlink(tmp_path / "file") == target
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["directory", "file", "victim"]


def test_a_pipe_as_the_output_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(PlumeExportError, match="is not a regular file, but a device, pipe or stream"):
        write(tmp_path / "file")
    assert (tmp_path / "file").is_fifo()


def test_a_link_at_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / ".file.lock").symlink_to("nowhere")
    with pytest.raises(PlumeExportError, match=r"\.file\.lock is a symbolic link to nowhere"):
        write(tmp_path / "file")
    assert os.listdir(tmp_path) == [".file.lock"]


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PlumeExportError, match="No such file or directory"):
        write(tmp_path / "missing" / "file")
