"""Buffers of the backends that compute in host memory: numpy arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..spec import DType
from .backend import Array


class NumpyBuffers:
    """The buffer half of the backend protocol over numpy arrays."""

    def zeros(self, shape: Sequence[int], dtype: DType) -> Array:
        return np.zeros(shape, dtype)

    def upload(self, array: Array, dtype: DType) -> Array:
        return np.ascontiguousarray(array, dtype)

    def download(self, buffer: Array) -> NDArray[np.float32]:
        return buffer.astype(np.float32)

    def copy(self, source: Array, target: Array) -> None:
        target[...] = source

    def copy_to_slot(self, source: Array, target: Array, slot: int) -> None:
        target[slot] = source

    def set_step(self, target: Array, step: int) -> None:
        target[...] = step

    def concatenate(self, buffers: Sequence[Array]) -> Array:
        return buffers[0] if len(buffers) == 1 else np.concatenate(buffers)
