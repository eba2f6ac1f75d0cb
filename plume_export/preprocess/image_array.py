"""A uint8 array as an image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError

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
