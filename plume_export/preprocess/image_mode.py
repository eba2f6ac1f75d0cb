"""Modes of Pillow's images: those that become RGB as they are, and what to do first with the others."""

import shlex

from PIL import Image

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
        fix=_fix(_CONVERSIONS.get(image.mode, 'image.convert("RGB")'), file),
    )


def _fix(conversion: str, file: str | None) -> str:
    if file is None:
        needs = "from PIL import ImageCms; " if "ImageCms" in conversion else ""
        return f"convert it: {needs}image = {conversion}"
    program = f"import sys; from PIL import Image, ImageCms; image = Image.open(sys.argv[1]); {conversion}.save(sys.argv[2])"
    return f"convert it: python -c {shlex.quote(program)} {shlex.quote(file)} converted.png"
