"""Images of more than 8 bits a channel, which Pillow's conversion to RGB would clip."""

import shlex

import numpy as np
from PIL import Image

from ..errors import InputError


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
        fix=_fix(_scaled_expression(mode, low, high), file),
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


def _fix(scaled: str, file: str | None) -> str:
    if file is None:
        return f"scale it to 8 bits: a = np.asarray(image); Image.fromarray({scaled}.astype(np.uint8))"
    program = "import sys, numpy as np; from PIL import Image; a = np.asarray(Image.open(sys.argv[1])); "
    program += f"Image.fromarray({scaled}.astype(np.uint8)).save(sys.argv[2])"
    return f'scale it to 8 bits: python -c "{program}" {shlex.quote(file)} 8-bit.png'
