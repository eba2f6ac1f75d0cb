"""Open an image from any of its sources: a file, bytes, a data URL, a PIL image or an array."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias

from PIL import Image, UnidentifiedImageError

from ..errors import InputError, MissingDecoderError

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def open_image(file: str | os.PathLike[str] | BinaryIO, name: str) -> Image.Image:
    """Open an image in any format that Pillow reads, or HEIC.

    Raises the errors of `Image.open`, MissingDecoderError and InputError.
    """
    try:
        image: Image.Image = Image.open(file)
        if image.format == "EPS":  # a PostScript file is a program, and Pillow would run it with Ghostscript
            image.close()
            raise InputError(
                f"{name} is a PostScript file, not an image.",
                fix="render it first, for example with gs -sDEVICE=png16m -o page.png",
            )
        return image
    except UnidentifiedImageError:
        brand = _brand(file)
        if brand in _AVIF_BRANDS:
            raise InputError(
                f"{name} is an AVIF image, which this version of Pillow cannot read.", fix="pip install 'Pillow>=11.3'"
            ) from None
        if brand not in _HEIF_BRANDS:
            raise
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise MissingDecoderError(f"{name} is a HEIC image", "pillow-heif", "heif") from None
    open_heif: Any = HeifImageFile  # called directly, because registering it would change Pillow for the whole process
    heif: Image.Image = open_heif(file)
    return heif


def has_more_frames(image: Image.Image) -> bool:
    """Return True if an opened file has several frames or pages. Extra images in a camera's JPEG or HEIC do not count."""
    try:
        return image.format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF") and bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame is corrupt
        return True


def _brand(file: str | os.PathLike[str] | BinaryIO) -> bytes | None:
    """Return the brand of an ISO media file; None for any other file."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return _brand(opened)
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    return head[8:12] if head[4:8] == b"ftyp" else None


# An open file must be binary and seekable.
EncodedSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def is_open_file(value: object) -> bool:
    return hasattr(value, "read") and not isinstance(value, os.PathLike)


def name_of_source(source: EncodedSource) -> str:
    """Return the name of an image source for messages."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the image of {memoryview(source).nbytes:,} bytes"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the open image file"


@contextmanager
def readable(source: EncodedSource) -> Iterator[str | os.PathLike[str] | BinaryIO]:
    """Yield a path, or a binary file at its start. The position of an open file is restored.

    Raises InputError for a file that cannot be rewound or was opened as text.
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
    except Exception as error:  # a pipe, a socket, a closed file, or not a file
        raise InputError(
            f"{name} cannot be read from its start: {error}.", fix="pass its contents as bytes: file.read()"
        ) from None
