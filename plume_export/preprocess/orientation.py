"""Which way a picture lies, by the EXIF tag that cameras write instead of turning the pixels."""

from typing import Literal

from PIL import ExifTags, Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_AS_STORED = 1
_MARK = b"Exif\0\0"
# A TIFF file: byte order and offset of the first directory; there a count and entries of tag, type, count and value.
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ENTRY_BYTES = 12
_ONE_SHORT = 3, 1  # the type and count that an orientation has


def orientation_of(image: Image.Image) -> int | None:
    """Return the orientation of a loaded image; None if it has an EXIF block that cannot be read.

    TIFF and HEIC are turned while they are loaded, whatever the caller wants, and then have no tag.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if orientation is None:
            return _AS_STORED if _lacks_orientation(_block(image)) else None
        return orientation if isinstance(orientation, int) else None
    except Exception:  # a damaged block raises a dozen kinds; the pixels are fine
        return None


def turn_to_upright(orientation: int | None) -> Image.Transpose | None:
    """Return what turns an image of this orientation upright; None if nothing does."""
    return None if orientation is None else _UPRIGHT.get(orientation)


def _block(image: Image.Image) -> bytes:
    """Return an image's EXIF block from its byte order on; b"" if it has none."""
    block: bytes = image.info.get("exif") or b""
    if not block and "Raw profile type exif" in image.info:  # of PNG: name and length stand before hexadecimal digits
        block = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    while block.startswith(_MARK):
        block = block[len(_MARK) :]
    return block


def _lacks_orientation(block: bytes) -> bool:
    """Whether a block has a whole directory without an unreadable orientation. Pillow only warns of one that is cut off."""
    if not block:
        return True
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        return False

    def integer(start: int, size: int) -> int:
        return int.from_bytes(block[start : start + size], order)

    first = integer(4, 4) + 2
    end = first + _ENTRY_BYTES * integer(first - 2, 2)
    if not first <= end <= len(block):
        return False
    entries = range(first, end, _ENTRY_BYTES)
    found = [(integer(at + 2, 2), integer(at + 4, 4)) for at in entries if integer(at, 2) == ExifTags.Base.Orientation]
    return all(form == _ONE_SHORT for form in found)  # one that could be read was removed from the opened image
