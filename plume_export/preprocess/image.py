"""An image to patches, pixel for pixel as in the published evaluation.

Source: qwen-vl-utils 0.0.14 `fetch_image`, then the Pillow image processor of Qwen2-VL in transformers.
"""

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..spec import PreprocessSpec, VisionSpec
from .item import ImageSource
from .patches import Grid, Patches, patches_from_frames

# The limit at which Pillow itself refuses an image. It is checked on the header, before anything is decoded.
MAX_SOURCE_PIXELS = 178_956_970
MAX_ASPECT_RATIO = 200
# qwen-vl-utils' own limits, in visual tokens of factor x factor pixels.
_MIN_TOKENS, _MAX_TOKENS = 4, 16384


def patches_from_image(image: Image.Image, vision: VisionSpec, preprocess: PreprocessSpec) -> tuple[Patches, Grid]:
    """Return the patches of an RGB image, and their grid. Raises InputError."""
    factor = vision.patch_size * vision.merge_size
    image = fetch_image(image, factor)
    pixels = np.asarray(resize_within(image, factor, preprocess))
    return patches_from_frames(pixels[None], vision, preprocess)


def load_image(source: ImageSource) -> Image.Image:
    """Return an image as RGB: transparency of RGBA on white, of other modes dropped, EXIF orientation ignored, as published.

    Raises InputError for a file that is missing, damaged or no image, and for an image that is empty, too large or too narrow.
    """
    if isinstance(source, np.ndarray):
        return _image_from_array(source)
    if isinstance(source, Image.Image):
        return _rgb_from_image(source, f"the {source.mode} image")
    name = os.fspath(source)
    try:
        with Image.open(source) as image:
            return _rgb_from_image(image, name)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"The image {name} does not exist.", fix=_fix_of_missing(name)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"The image {name} is refused: {error}", fix="scale the image down") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged data
        reason = "it is a directory" if Path(name).is_dir() else str(error) or type(error).__name__
        raise InputError(
            f"{name} can not be read as an image: {reason.rstrip('.')}.",
            fix="render its pages to images, as with pdftoppm -png"
            if name.lower().endswith(".pdf")
            else "pass a complete PNG, JPEG, WebP or other image file",
        ) from error


def smart_resize(height: int, width: int, factor: int, *, min_pixels: float, max_pixels: float) -> tuple[int, int]:
    """Return (height, width) in multiples of `factor`, within the pixel limits, with about the same aspect ratio.

    The rule of Qwen2-VL and of qwen-vl-utils. Raises InputError if the aspect ratio is above 200.
    """
    _check_aspect_ratio(height, width, "the image")
    resized_height = max(factor, round(height / factor) * factor)
    resized_width = max(factor, round(width / factor) * factor)
    if resized_height * resized_width > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        resized_height = max(factor, math.floor(height / shrink / factor) * factor)
        resized_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif resized_height * resized_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        resized_height = math.ceil(height * grow / factor) * factor
        resized_width = math.ceil(width * grow / factor) * factor
    return resized_height, resized_width


def fetch_image(image: Image.Image, factor: int) -> Image.Image:
    """Resize by qwen-vl-utils' rule for an image: multiples of `factor`, 4 to 16384 tokens."""
    height, width = smart_resize(
        image.height, image.width, factor, min_pixels=_MIN_TOKENS * factor**2, max_pixels=_MAX_TOKENS * factor**2
    )
    return image.resize((width, height), Image.Resampling.BICUBIC)


def resize_within(image: Image.Image, factor: int, preprocess: PreprocessSpec) -> Image.Image:
    """Resize by the rule of transformers' image processor: multiples of `factor` within the pixel limits of the model."""
    height, width = smart_resize(
        image.height, image.width, factor, min_pixels=preprocess.min_pixels, max_pixels=preprocess.max_pixels
    )
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _image_from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(
            f"An image array is {array.dtype} {list(array.shape)}; expected uint8 [height, width, 3].",
            fix="convert it to RGB and to uint8",
        )
    _check_size(array.shape[0], array.shape[1], "the image array")
    return Image.fromarray(np.ascontiguousarray(array))


def _rgb_from_image(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.height, image.width, name)
    try:
        if image.mode == "RGBA":
            background = Image.new("RGB", image.size, (255, 255, 255))
            background.paste(image, mask=image.getchannel("A"))
            return background
        return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged data
        raise InputError(
            f"{name} can not be decoded: {str(error).rstrip('.') or type(error).__name__}.", fix="pass a complete image"
        ) from error


def _check_size(height: int, width: int, name: str) -> None:
    if height < 1 or width < 1:
        raise InputError(f"{name} has {width}x{height} pixels; expected at least 1x1.", fix="pass an image that is not empty")
    if height * width > MAX_SOURCE_PIXELS:
        raise InputError(
            f"{name} has {width}x{height} = {width * height} pixels; the limit is {MAX_SOURCE_PIXELS} (a decompression bomb?).",
            fix="scale the image down",
        )
    _check_aspect_ratio(height, width, name)


def _check_aspect_ratio(height: int, width: int, name: str) -> None:
    ratio = max(height, width) / min(height, width)
    if ratio > MAX_ASPECT_RATIO:
        raise InputError(
            f"{name} has {width}x{height} pixels, an aspect ratio of {ratio:.0f}; the limit is {MAX_ASPECT_RATIO}.",
            fix="crop or pad the image",
        )


def _fix_of_missing(name: str) -> str:
    if "://" in name or name.startswith("data:"):
        return "save the image as a file and pass its path; addresses are not fetched"
    return "check the path; in a JSON lines file it is relative to that file"
