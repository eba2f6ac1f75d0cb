"""Buffers of the backends that compute in host memory: numpy arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spec import DType
from .backend import Array, Region, TensorShape


class NumpyBuffers:
    """The buffer half of the backend protocol over numpy arrays. Every allocation is new memory, so few batches are kept."""

    kept_batches = 1

    def padded_tokens(self, tokens: int) -> int:
        return tokens

    def constant(self, array: Array, dtype: DType) -> Array:
        return np.ascontiguousarray(array, dtype)

    def upload(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def allocate(self, region: Region, tensors: Mapping[str, TensorShape]) -> dict[str, Array]:
        return {name: np.zeros(shape, dtype) for name, (shape, dtype) in tensors.items()}

    def rows(self, buffer: Array, start: int, stop: int) -> Array:
        return buffer[start:stop]

    def copy(self, source: Array, target: Array) -> None:
        target[...] = source.reshape(target.shape)

    def clear(self, buffer: Array) -> None:
        buffer.fill(0)

    def download(self, buffer: Array) -> NDArray[np.float32]:
        return buffer.astype(np.float32)

    def replayable(self, work: Callable[[], None]) -> "PlainReplay":
        return PlainReplay(work)

    def wait(self) -> None:
        pass


@dataclass(frozen=True)
class PlainReplay:
    """Work that is simply done."""

    run: Callable[[], None]

    def close(self) -> None:
        pass
