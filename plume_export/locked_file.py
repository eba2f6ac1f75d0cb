"""A hidden file beside an output, opened by one process at a time. Symbolic links are not followed."""

import os
import stat
from pathlib import Path

from .errors import PlumeExportError


def open_locked(file: Path, flags: int, output: Path, *, is_shared: bool = False) -> int:
    """Open and lock `file`; return its descriptor. The lock ends with the process, even if it is killed.

    Raises PlumeExportError if another thread or process holds the lock because it is writing `output`, or if the file system
    has no locks. Also raises the errors of `open_hidden`. Only the holder of the lock may remove the file.
    """
    while True:
        descriptor = open_hidden(file, flags)
        try:
            _lock(descriptor, output, is_shared=is_shared)
            if _is_at(file, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous holder has removed this file


def open_hidden(file: Path, flags: int) -> int:
    """Open a regular file. Raises PlumeExportError for a link or another kind of file, and the OSErrors of `os.open`."""
    try:
        descriptor = os.open(file, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError:
        if file.is_symlink():
            raise _in_the_way(file, f"is a symbolic link to {os.readlink(file)}, which is not followed") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _in_the_way(file, "is not a regular file")
    return descriptor


def _in_the_way(file: Path, what: str) -> PlumeExportError:
    return PlumeExportError(f"{file} {what}.", fix="remove it, or choose another --output")


def _lock(descriptor: int, output: Path, *, is_shared: bool) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PlumeExportError(
            f"{output} is being written by another process.", fix="wait until it is finished, or choose another --output"
        ) from None
    except OSError as error:
        raise PlumeExportError(
            f"{output} cannot be written: its file system has no locks ({error.strerror}).",
            fix="choose an --output on another file system",
        ) from error


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
