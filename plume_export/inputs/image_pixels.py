"""Convert any image to 8-bit RGB: modes, bit depths, transparency, EXIF orientation and arrays."""

import shlex
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ..errors import InputError

# The accepted modes. Modes with more than 8 bits per channel are checked separately (check_depth).
TAKEN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
# Python code that converts a LAB `image` to RGB. Shown to users as a fix.
_LAB_TO_RGB = (
    'ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")'
)
_CONVERSIONS = {"La": 'image.convert("LA")', "LAB": _LAB_TO_RGB}


def check_mode(image: Image.Image, name: str, file: str | None) -> None:
    """Raise InputError for a mode that cannot be converted to RGB, or whose conversion depends on how Pillow was built.

    `file` is the path, if the image came from a file.
    """
    if image.mode in TAKEN_MODES:
        return
    raise InputError(
        f"{name} has mode {image.mode}; expected one of {', '.join(TAKEN_MODES)}.",
        fix=_fix_of_mode(_CONVERSIONS.get(image.mode, 'image.convert("RGB")'), file),
    )


def _fix_of_mode(conversion: str, file: str | None) -> str:
    if file is None:
        needs = "from PIL import ImageCms; " if "ImageCms" in conversion else ""
        return f"convert it: {needs}image = {conversion}"
    program = f"import sys; from PIL import Image, ImageCms; image = Image.open(sys.argv[1]); {conversion}.save(sys.argv[2])"
    return f"convert it: python -c {shlex.quote(program)} {shlex.quote(file)} converted.png"


def check_depth(image: Image.Image, name: str, file: str | None) -> None:
    """Raise InputError for 16-bit, 32-bit and float modes, because most of their values would become white or black.

    `file` is the path, if the image came from a file. Formats that Pillow itself reduces to 8 bits, such as 16-bit RGB, are
    accepted.
    """
    mode = image.mode
    if mode not in ("I", "F") and not mode.startswith("I;16"):
        return
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    raise InputError(
        f"{name} has mode {mode} ({_meaning(mode)}), with values from {low:g} to {high:g}; expected 8 bits per channel.",
        fix=_fix_of_depth(_scaled_expression(mode, low, high), file),
    )


def _meaning(mode: str) -> str:
    return {"I": "32-bit integers", "F": "32-bit float"}.get(mode, "16-bit grey")


def _scaled_expression(mode: str, low: float, high: float) -> str:
    """Return a Python expression that scales an array `a` to 0..255, based on the range of its values."""
    if mode == "F" and low >= 0 and high <= 1:
        return "(a * 255)"
    if mode in ("I", "F") and low >= 0 and high <= 255:
        return "a"
    if mode != "F" and low >= 0 and high <= 65535:
        return "(a // 257)"
    return "((a - a.min()) * (255 / (a.max() - a.min())))" if high > low else "(a * 0)"


def _fix_of_depth(scaled: str, file: str | None) -> str:
    if file is None:
        return f"scale it to 8 bits: a = np.asarray(image); Image.fromarray({scaled}.astype(np.uint8))"
    program = "import sys, numpy as np; from PIL import Image; a = np.asarray(Image.open(sys.argv[1])); "
    program += f"Image.fromarray({scaled}.astype(np.uint8)).save(sys.argv[2])"
    return f'scale it to 8 bits: python -c "{program}" {shlex.quote(file)} 8-bit.png'


_DETAILS = {"P": "a transparent palette", "PA": "a transparent palette", "LA": "transparency beside grey"}


def dropped_transparency(image: Image.Image) -> str:
    """Describe the transparency that would be dropped from a loaded image. Return "" if every pixel is opaque."""
    if image.mode == "RGBA" or not image.has_transparency_data or not _has_clear_pixels(image):
        return ""
    return _DETAILS.get(image.mode, f"transparency in mode {image.mode}")


def without_transparency(image: Image.Image) -> Image.Image:
    """Return the image without its transparent-colour setting, about which Pillow's conversion would warn. No pixel changes."""
    if "transparency" not in image.info:
        return image
    opaque = image.copy()
    del opaque.info["transparency"]
    return opaque


def _has_clear_pixels(image: Image.Image) -> bool:
    try:
        extrema: Any = image.convert("RGBA").getchannel("A").getextrema()
    except Exception:  # an index outside the palette, or a mode that has no such conversion
        return True
    return bool(extrema[0] < 255)


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
# A TIFF file: byte order and offset of the first directory. A directory has a count, then entries of tag, type, count, value.
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ENTRY_BYTES = 12
_ONE_SHORT = 3, 1  # type and count of an orientation entry


def orientation_of(image: Image.Image) -> int | None:
    """Return the orientation of a loaded image; None if its EXIF block cannot be read.

    Pillow always rotates TIFF and HEIC when it loads them. They then have no orientation tag.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if orientation is None:
            return _AS_STORED if _lacks_orientation(_block(image)) else None
        return orientation if isinstance(orientation, int) else None
    except Exception:  # a corrupt EXIF block raises a dozen exception types, but the pixels are valid
        return None


def turn_to_upright(orientation: int | None) -> Image.Transpose | None:
    """Return the transposition that rotates an image of this orientation upright; None if no rotation is needed."""
    return None if orientation is None else _UPRIGHT.get(orientation)


def _block(image: Image.Image) -> bytes:
    """Return an image's EXIF block, starting at the byte order; b"" if the image has no EXIF block."""
    block: bytes = image.info.get("exif") or b""
    if not block and "Raw profile type exif" in image.info:  # PNG: name and length precede hexadecimal digits
        block = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    while block.startswith(_MARK):
        block = block[len(_MARK) :]
    return block


def _lacks_orientation(block: bytes) -> bool:
    """Return True if an EXIF block is complete and has no orientation entry that Pillow could not read.

    The check is needed because Pillow only warns about a truncated block.
    """
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
    return all(form == _ONE_SHORT for form in found)  # a readable orientation was already removed from the opened image


_EXPECTED = "uint8 [height, width, 3], [height, width, 4] or [height, width]"


def image_from_array(array: NDArray[np.uint8]) -> Image.Image:
    """Return an image from an array: [h, w] is grey, [h, w, 3] RGB, [h, w, 4] RGBA. Raises InputError for any other array."""
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(
            f"An image array is {array.dtype} {list(array.shape)}; expected {_EXPECTED}.",
            fix="; ".join([*_fixes_of_shape(array), *_fixes_of_type(array.dtype)]),
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _fixes_of_shape(array: NDArray[np.uint8]) -> list[str]:
    shape = array.shape
    if array.ndim == 1:
        return ["for the bytes of an image file, pass array.tobytes()"]
    if array.ndim == 4:
        return ["pass several images as list(array)"]
    if array.ndim != 3:
        return ["pass one image"]
    if shape[2] in (3, 4):
        return []
    if shape[2] == 1:
        return ["pass array[:, :, 0]"]
    if shape[0] == 1:
        return ["pass array[0]"]
    if shape[0] in (3, 4):
        return ["pass array.transpose(1, 2, 0), with the channels last"]
    return ["pass grey, RGB or RGBA, with the channels last"]


def _fixes_of_type(dtype: np.dtype[np.uint8]) -> list[str]:
    if dtype == np.uint8:
        return []
    if dtype == np.bool_:
        return ["convert it: array.astype(np.uint8) * 255"]
    if dtype == np.uint16:
        return ["convert it: (array // 257).astype(np.uint8)"]
    if dtype.kind == "f":
        return ["convert it: (array * 255).astype(np.uint8) if values are 0 to 1, array.astype(np.uint8) if they are 0 to 255"]
    return ["convert it: array.astype(np.uint8) if values are 0 to 255"]
