"""Opening an image file, HEIC included, for which Pillow needs another package."""

import os
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import InputError, MissingDecoderError

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def open_image(file: str | os.PathLike[str] | BinaryIO, name: str) -> Image.Image:
    """Open an image of any format that Pillow reads, or HEIC. Raises as `Image.open` does; MissingDecoderError, InputError."""
    try:
        image: Image.Image = Image.open(file)
        if image.format == "EPS":  # a program, which Pillow would have Ghostscript run
            image.close()
            raise InputError(
                f"{name} is a PostScript file, not a picture.", fix="render it first, as gs -sDEVICE=png16m -o page.png"
            )
        return image
    except UnidentifiedImageError:
        brand = _brand(file)
        if brand in _AVIF_BRANDS:
            raise InputError(
                f"{name} is an AVIF picture, which this Pillow cannot read.", fix="pip install 'Pillow>=11.3'"
            ) from None
        if brand not in _HEIF_BRANDS:
            raise
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise MissingDecoderError(f"{name} is a HEIC picture", "pillow-heif", "heif") from None
    open_heif: Any = HeifImageFile  # called, not registered with Pillow, which would change it for the whole process
    heif: Image.Image = open_heif(file)
    return heif


def has_more_frames(image: Image.Image) -> bool:
    """Whether an opened file has frames or pages after the first. What a camera adds to its JPEG or HEIC counts for none."""
    try:
        return image.format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF") and bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame is damaged
        return True


def _brand(file: str | os.PathLike[str] | BinaryIO) -> bytes | None:
    """Return the brand of an ISO media file."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return _brand(opened)
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    return head[8:12] if head[4:8] == b"ftyp" else None
