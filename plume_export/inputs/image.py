"""Convert an image to patches, with the same pixels as the original evaluation code.

Source: qwen-vl-utils 0.0.14 `fetch_image`, then the Pillow image processor of Qwen2-VL in transformers.
"""

import math
import os

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..spec import PreprocessSpec, VisionSpec
from .image_file import has_more_frames, name_of_source, open_image, readable
from .image_pixels import (
    check_depth,
    check_mode,
    dropped_transparency,
    image_from_array,
    orientation_of,
    turn_to_upright,
    without_transparency,
)
from .item import ImageSource
from .media_files import VIDEO_SUFFIXES
from .notice import Notice, Notify
from .patches import Grid, Patches, patches_from_frames

# Above this limit Pillow itself raises an error. The size is read from the header, before any pixel is decoded.
MAX_SOURCE_PIXELS = 178_956_970
MAX_ASPECT_RATIO = 200
# Limits of qwen-vl-utils, in visual tokens of factor x factor pixels.
_MIN_TOKENS, _MAX_TOKENS = 4, 16384


def patches_from_image(image: Image.Image, vision: VisionSpec, preprocess: PreprocessSpec) -> tuple[Patches, Grid]:
    """Return the patches of an RGB image and their grid. Raises InputError."""
    factor = vision.patch_size * vision.merge_size
    image = fetch_image(image, factor)
    pixels = np.asarray(resize_within(image, factor, preprocess))
    return patches_from_frames(pixels[None], vision, preprocess)


def load_image(source: ImageSource, *, exif_transpose: bool = False, notify: Notify = lambda _: None) -> Image.Image:
    """Return an image as RGB.

    As in the original code, RGBA is composited on white, transparency of other modes is dropped, and EXIF rotation is ignored.
    `exif_transpose` rotates the image by its EXIF orientation. `notify` is called with a Notice for everything that was dropped
    or ignored. An open file is read from its start; its position is restored.

    Raises InputError if a file is missing, corrupt or not an image, if an image has more than 8 bits per channel or a mode that
    cannot be converted to RGB, and if it is empty, too large or too narrow.
    """
    if isinstance(source, np.ndarray):
        image = image_from_array(source)
        return _rgb_from_image(image, "the image array", None, exif_transpose, notify)
    if isinstance(source, Image.Image):
        return _rgb_from_image(source, f"the {source.mode} image", None, exif_transpose, notify)
    name = name_of_source(source)
    path = name if isinstance(source, str | os.PathLike) else None
    try:
        with readable(source) as file, open_image(file, name) as image:
            rgb = _rgb_from_image(image, name, path, exif_transpose, notify)
            if has_more_frames(image):
                notify([Notice("frames ignored", name)])
            return rgb
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"The image {name} does not exist.", fix=_fix_of_missing(name)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"The image {name} is too large: {error}", fix="scale the image down") from None
    except Exception as error:  # Pillow's decoders raise a dozen exception types for corrupt data
        reason = "it is a directory" if path is not None and os.path.isdir(path) else _reason(error)
        raise InputError(
            f"{name} cannot be read as an image: {reason}.",
            fix=_fix_of_unreadable(name),
        ) from error


def smart_resize(height: int, width: int, factor: int, *, min_pixels: float, max_pixels: float) -> tuple[int, int]:
    """Return (height, width) in multiples of `factor`, within the pixel limits, with about the same aspect ratio.

    This is the rule of Qwen2-VL and qwen-vl-utils. Raises InputError if the aspect ratio is above 200.
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
    """Resize by the image rule of qwen-vl-utils: multiples of `factor`, 4 to 16384 tokens."""
    height, width = smart_resize(
        image.height, image.width, factor, min_pixels=_MIN_TOKENS * factor**2, max_pixels=_MAX_TOKENS * factor**2
    )
    return image.resize((width, height), Image.Resampling.BICUBIC)


def resize_within(image: Image.Image, factor: int, preprocess: PreprocessSpec) -> Image.Image:
    """Resize by the rule of transformers' image processor: multiples of `factor` within the model's pixel limits."""
    height, width = smart_resize(
        image.height, image.width, factor, min_pixels=preprocess.min_pixels, max_pixels=preprocess.max_pixels
    )
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _rgb_from_image(image: Image.Image, name: str, path: str | None, exif_transpose: bool, notify: Notify) -> Image.Image:
    _check_size(image.height, image.width, name)
    try:
        image.load()  # must precede the reading of the EXIF tag
        check_depth(image, name, path)
        check_mode(image, name, path)
        rgb, orientation, transparency = _converted(image), orientation_of(image), dropped_transparency(image)
        turn = turn_to_upright(orientation)
        if turn is not None and exif_transpose:
            rgb, turn = rgb.transpose(turn), None
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen exception types for corrupt data
        raise InputError(f"{name} cannot be decoded: {_reason(error)}.", fix="pass a complete image") from error
    if turn is not None:
        notify([Notice("rotation ignored", name)])
    if orientation is None and exif_transpose:
        notify([Notice("rotation unreadable", name)])
    if transparency:
        notify([Notice("transparency dropped", name, detail=transparency)])
    return rgb


def _converted(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return without_transparency(image).convert("RGB")
    background = Image.new("RGB", image.size, (255, 255, 255))
    background.paste(image, mask=image.getchannel("A"))
    return background


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


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # the message of this error contains a memory address
        return "its format is unknown"
    return " ".join(str(error).split()).rstrip(" .") or type(error).__name__


def _fix_of_unreadable(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()
    if suffix == ".pdf":
        return "render its pages to images, for example with pdftoppm -png"
    if suffix in VIDEO_SUFFIXES:
        return f'pass a video as {{"video": {name!r}}}'
    return "pass a complete PNG, JPEG, WebP or other image file"


def _fix_of_missing(name: str) -> str:
    if "://" in name or name.startswith("data:"):
        return "save the image as a file and pass its path; URLs are not fetched"
    return "check the path; in a JSON lines file, paths are relative to that file"
