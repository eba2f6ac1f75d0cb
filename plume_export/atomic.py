"""A directory that is written completely or not at all, by one process at a time.

During the write, hidden files are beside it (NAME is the output's name):

.NAME.lock locked by the writing process; empty .NAME.partial-XXXXXXXX its scratch directory .NAME.partial-XXXXXXXX.old the
previous output, between the two renames that replace it

A killed process leaves them behind. The next process that writes the same output restores the previous output if none exists,
and removes the others. The previous output is deleted only when a complete one is in its place.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import PlumeExportError
from .locked_file import open_locked
from .progress import Report

# Length of the longest hidden name, without the output's name.
HIDDEN_NAME_BYTES = len("..partial-XXXXXXXX.old")
_WRITE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EIO,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EBUSY, errno.EXDEV, errno.EINVAL, errno.ENOENT, errno.ESTALE,
    errno.EOPNOTSUPP,
}  # fmt: skip
# Errors of file systems that cannot sync a directory.
_SYNC_UNSUPPORTED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}


class WriteError(PlumeExportError):
    """The output cannot be written. `reason` is the operating system's text."""

    def __init__(self, output: Path, reason: str) -> None:
        super().__init__(
            f"{output} cannot be written: {reason}.", fix="free space or choose another --output; no partial output was left"
        )
        self.reason = reason


@contextmanager
def scratch_directory(
    output: Path, report: Report = lambda _: None, *, is_whole: Callable[[Path], bool] = lambda _: False
) -> Iterator[Path]:
    """Yield an empty directory beside `output` and delete it at the end. Hold the lock of `output` in the meantime.

    First restore or remove the leftovers of killed builds, and report them. A previous output that was moved aside is removed
    at once if `is_whole(output)`, and otherwise later by `put_in_place`. Raises PlumeExportError if another thread or process
    is writing the output. OS errors become WriteErrors.
    """
    with as_write_error(output), _parents(output), locked(output):
        _clear_leftovers(output, report, is_whole)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        try:
            yield scratch
        finally:
            _remove_tree(scratch, report)


def put_in_place(directory: Path, output: Path, scratch: Path, check: Callable[[Path], object] = lambda _: None) -> None:
    """Rename a directory in `scratch` to `output`, safely even if the machine crashes. Move the previous output to `scratch`.

    One of the two is complete at any time: the previous output is first renamed, and renamed back if anything fails. `check`
    receives its new path, where no other process adds files, and raises if it must not be replaced.
    """
    _sync_tree(directory)
    aside = scratch.with_name(f"{scratch.name}.old")
    with ExitStack() as undo:
        if output.exists():
            output.rename(aside)
            undo.callback(aside.rename, output)
            check(aside)
        directory.rename(output)
        undo.callback(output.rename, directory)
        sync(output.parent)
        undo.pop_all()
    with suppress(OSError):  # the next build removes what stays
        for file in [file for file, is_aside in _leftovers(output) if is_aside]:
            file.rename(scratch / file.name)


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Lock `output` for writing. Raises PlumeExportError if another thread or process is writing it."""
    descriptor = open_locked(_lock_file(output), os.O_RDWR | os.O_CREAT, output)
    try:
        yield
    finally:
        _lock_file(output).unlink(missing_ok=True)
        os.close(descriptor)


def check_not_locked(output: Path) -> None:
    """Raise PlumeExportError if another thread or process is writing `output`."""
    with suppress(FileNotFoundError):
        os.close(open_locked(_lock_file(output), os.O_RDWR, output, is_shared=True))


def moved_aside(output: Path) -> Path | None:
    """Return the newest previous output that killed writers moved aside; None if there is none. Raises OSError."""
    aside = [file for file, is_aside in _leftovers(output) if is_aside]
    return max(aside, key=lambda file: file.stat().st_ctime_ns, default=None)


def sync(path: Path) -> None:
    """Flush a file's data or a directory's names to disk. Raises OSError, also for earlier failed writes.

    Some file systems cannot sync a directory and report that; it is not treated as an error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _SYNC_UNSUPPORTED or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def as_write_error(output: Path) -> Iterator[None]:
    """Convert OS errors to WriteErrors that name `output`."""
    try:
        yield
    except WriteError as error:  # from a file or directory inside this output
        raise WriteError(output, error.reason) from error
    except OSError as error:
        if error.errno not in _WRITE_ERRORS:
            raise
        raise WriteError(output, _reason(error, output)) from error


def _reason(error: OSError, output: Path) -> str:
    """Return the OS error's text, with the name of the file if that is not the output itself."""
    reason = error.strerror or str(error)
    is_another = error.errno == errno.ENOENT and error.filename is not None and str(error.filename) != str(output)
    return f"{reason}: {error.filename}" if is_another else reason


@contextmanager
def _parents(output: Path) -> Iterator[None]:
    """Create the parent directories of `output`. On an error, those that are still empty are removed."""
    missing = [parent for parent in output.parents if not parent.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for parent in missing:
                parent.rmdir()
        raise


def _lock_file(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


def _clear_leftovers(output: Path, report: Report, is_whole: Callable[[Path], bool]) -> None:
    """Restore or remove the leftovers of killed builds. Requires the lock, so that no running build is affected."""
    _restore(output, report)
    left = [file for file, is_aside in _leftovers(output) if not is_aside or is_whole(output)]
    for file in left:
        _remove_tree(file, report)
    if left:
        report(f"removed {', '.join(file.name for file in left)}: leftovers of a build that was killed")


def _restore(output: Path, report: Report) -> None:
    """Restore the newest previous output that was moved aside, if `output` is missing or an empty directory."""
    newest = moved_aside(output)
    if newest is None or (output.exists() and any(output.iterdir())):
        return
    if output.exists():
        output.rmdir()
    newest.rename(output)
    report(f"restored {output}, which a killed build had moved to {newest.name}")


def _leftovers(output: Path) -> list[tuple[Path, bool]]:
    """Return the scratch directories of `output` (False), and its previous outputs that were moved aside (True)."""
    pattern = re.compile(re.escape(f".{output.name}.partial-") + r"[a-z0-9_]{8}(?P<old>\.old)?")
    files = sorted(output.parent.iterdir())
    return [(file, bool(match["old"])) for file in files if (match := pattern.fullmatch(file.name))]


def _remove_tree(directory: Path, report: Report) -> None:
    try:
        shutil.rmtree(directory)
    except OSError as error:
        report(f"{directory} cannot be removed: {error.strerror or error}; delete it manually")


def _sync_tree(directory: Path) -> None:
    for parent, _, names in os.walk(directory):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))
