"""A file that is written completely or not at all, by one process at a time."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .atomic import WriteError, as_write_error, locked, sync
from .errors import PlumeExportError

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def replacing(output: Path) -> Iterator[IO[bytes]]:
    """Yield a hidden file beside `output`; rename it to `output` once it is on disk. On an error `output` does not change.

    A hidden file or link left by a killed process is replaced. Raises PlumeExportError if `output` cannot be written or
    replaced, or if another thread or process is writing it.
    """
    check_replaceable(output)
    temporary = output.with_name(f".{output.name}.new")
    try:
        with locked(output):
            try:
                temporary.unlink(missing_ok=True)
                with os.fdopen(os.open(temporary, _NEW_FILE, 0o666), "wb") as file:
                    yield file
                sync(temporary)
                temporary.replace(output)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            with suppress(OSError):  # before this sync, a crash of the machine may restore the old file, which is also complete
                sync(output.parent)
    except OSError as error:
        raise WriteError(output, error.strerror or str(error)) from error


def check_replaceable(output: Path) -> None:
    """Raise PlumeExportError for a device, a pipe or a symbolic link. A rename would replace it and not write to it."""
    with as_write_error(output):
        is_link = output.is_symlink()
        is_stream = is_link and re.fullmatch("/dev|/proc/.*", os.path.realpath(output.parent))  # such as /dev/stdout, /dev/fd/1
        if is_stream or (output.exists() and not output.is_file() and not output.is_dir()):
            raise PlumeExportError(
                f"The output {output} is not a regular file, but a device, pipe or stream.",
                fix="choose a file in an existing, writable directory",
            )
        if is_link:
            raise PlumeExportError(
                f"The output {output} is a symbolic link to {os.readlink(output)}; neither is replaced.",
                fix=f"pass {os.path.realpath(output)}, or remove the link",
            )
