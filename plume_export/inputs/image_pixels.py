"""Any image as 8-bit RGB: modes, bit depths, transparency, EXIF orientation and arrays."""

import shlex
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ..errors import InputError

# Those of more than 8 bits a channel have a check of their own (image_depth).
TAKEN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
# What makes one of them of an `image`, and what that needs besides Image.
_LAB_TO_RGB = (
    'ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")'
)
_CONVERSIONS = {"La": 'image.convert("LA")', "LAB": _LAB_TO_RGB}


def check_mode(image: Image.Image, name: str, file: str | None) -> None:
    """Raise InputError for a mode that has no conversion to RGB, or one that depends on how Pillow was built.

    `file` is the path, where there is one.
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
    """Raise InputError for 16-bit, 32-bit and float modes: most of their values would become white, or black.

    `file` is the path, where there is one. What Pillow itself reduces to 8 bits while it reads, as RGB of 16 bits, is fine.
    """
    mode = image.mode
    if mode not in ("I", "F") and not mode.startswith("I;16"):
        return
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    raise InputError(
        f"{name} has mode {mode} ({_meaning(mode)}), with values from {low:g} to {high:g}; expected 8 bits a channel.",
        fix=_fix_of_depth(_scaled_expression(mode, low, high), file),
    )


def _meaning(mode: str) -> str:
    return {"I": "32-bit integers", "F": "32-bit float"}.get(mode, "16-bit grey")


def _scaled_expression(mode: str, low: float, high: float) -> str:
    """Return what makes 0..255 of an array `a`, by the range that its values suggest."""
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
    """Return what holds transparency of a loaded image that is to be dropped; "" if every pixel is opaque."""
    if image.mode == "RGBA" or not image.has_transparency_data or not _has_clear_pixels(image):
        return ""
    return _DETAILS.get(image.mode, f"transparency in mode {image.mode}")


def without_transparency(image: Image.Image) -> Image.Image:
    """Return the same pixels without a transparent colour, of which Pillow's conversion would warn."""
    if "transparency" not in image.info:
        return image
    opaque = image.copy()
    del opaque.info["transparency"]
    return opaque


def _has_clear_pixels(image: Image.Image) -> bool:
    try:
        extrema: Any = image.convert("RGBA").getchannel("A").getextrema()
    except Exception:  # an index out of the palette's range, or a mode that has no such conversion
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


_EXPECTED = "uint8 [height, width, 3], [height, width, 4] or [height, width]"


def image_from_array(array: NDArray[np.uint8]) -> Image.Image:
    """Return [h, w] as grey, [h, w, 3] as RGB and [h, w, 4] as RGBA. Raises InputError for any other array."""
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
        return ["convert it: (array * 255).astype(np.uint8) of values from 0 to 1, array.astype(np.uint8) of 0 to 255"]
    return ["convert it: array.astype(np.uint8) of values from 0 to 255"]
