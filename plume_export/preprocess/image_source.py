"""An image file from wherever it is: a path, its bytes, or an open file."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias

from ..errors import InputError

# An open file is binary and seekable.
EncodedSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def is_open_file(value: object) -> bool:
    return hasattr(value, "read") and not isinstance(value, os.PathLike)


def name_of_source(source: EncodedSource) -> str:
    """Return what messages call an image file."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the image of {memoryview(source).nbytes:,} bytes"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the open image file"


@contextmanager
def readable(source: EncodedSource) -> Iterator[str | os.PathLike[str] | BinaryIO]:
    """Yield a path, or a binary file at its start. An open file is read from its start and left where it was.

    Raises InputError for a file that cannot be rewound, or that was opened as text.
    """
    if isinstance(source, str | os.PathLike):
        yield source
    elif isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    else:
        position = _checked_position(source)
        try:
            source.seek(0)
            yield source
        finally:
            if not source.closed:
                source.seek(position)


def _checked_position(file: BinaryIO) -> int:
    name = name_of_source(file)
    if isinstance(file, io.TextIOBase):
        raise InputError(f"{name} was opened as text; expected binary.", fix="open it with mode 'rb'")
    try:
        return file.tell()
    except Exception as error:  # a pipe, a socket, a closed file, or no file at all
        raise InputError(
            f"{name} cannot be read from its start: {error}.", fix="pass what it holds as bytes: file.read()"
        ) from None
