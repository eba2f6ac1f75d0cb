"""A file that is written whole or not at all, by one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .atomic import WriteError, locked, sync

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def replacing(output: Path) -> Iterator[IO[bytes]]:
    """Write to a hidden file beside `output`, and rename it once it is on the disk; on an error nothing changes.

    What a process that was killed left there is replaced, and so is a link there. Raises PlumeExportError if `output` cannot be
    written, or if another thread or process writes it now.
    """
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
            with suppress(OSError):  # until then a crash of the machine may bring the old file back, whole too
                sync(output.parent)
    except OSError as error:
        raise WriteError(output, error.strerror or str(error)) from error
