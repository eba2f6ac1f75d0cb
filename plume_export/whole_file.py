"""A file that is written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import PlumeExportError


@contextmanager
def replacing(output: Path) -> Iterator[IO[bytes]]:
    """Write to a temporary file beside `output` and rename it at the end; on an error nothing changes."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        try:
            with temporary.open("wb") as file:
                yield file
            temporary.replace(output)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise PlumeExportError(
            f"{output} can not be written: {error.strerror or error}.", fix="free space or choose another --output"
        ) from error
