"""Transparency that a conversion to RGB drops. Only that of mode RGBA is composited, as in the published code."""

from typing import Any

from PIL import Image

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
