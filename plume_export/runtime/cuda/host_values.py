"""Values on the host as the bytes that the device wants, and back. numpy has no bfloat16; its bits are float32's upper half."""

import numpy as np
from numpy.typing import NDArray

from ...spec import DType
from ..backend import Array


def stored_from_array(array: Array, dtype: DType) -> Array:
    """Return an array whose bytes are the values in `dtype`, rounded to nearest even; bfloat16 as uint16."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, dtype)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (np.where(np.isnan(array), bits | 0x10000, rounded) >> 16).astype(np.uint16)


def empty_stored(shape: tuple[int, ...], dtype: DType) -> Array:
    """Return an array to receive a tensor's bytes."""
    return np.empty(shape, np.uint16 if dtype == "bfloat16" else dtype)


def float32_from_stored(stored: Array, dtype: DType) -> NDArray[np.float32]:
    """Return the values of received bytes."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)
