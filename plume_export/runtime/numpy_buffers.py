"""Buffers of the backends that compute in host memory: numpy arrays."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ..spec import DType
from .backend import Array, Region, TensorShape

# Tensors are aligned to cache lines for vector instructions.
_ALIGNMENT = 64


class NumpyBuffers:
    """The buffer half of the backend protocol, with numpy arrays.

    A region is one block that grows to the largest batch and is never freed, so memory use stays constant in long runs. Every
    batch uses the same addresses, so only one batch is cached.
    """

    kept_batches = 1

    def __init__(self) -> None:
        self._regions: dict[Region, NDArray[np.uint8]] = {}

    def padded_tokens(self, tokens: int) -> int:
        return tokens

    def constant(self, array: Array, dtype: DType) -> Array:
        return np.ascontiguousarray(array, dtype)

    def upload(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def allocate(self, region: Region, tensors: Mapping[str, TensorShape]) -> dict[str, Array]:
        sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype) in tensors.items()}
        ends = list(accumulate(size + -size % _ALIGNMENT for size in sizes.values()))
        if len(self._regions.get(region, ())) < ends[-1]:
            self._regions.pop(region, None)  # before allocating, so that its memory is free
            self._regions[region] = _aligned_bytes(ends[-1])
        block = self._regions[region]
        return {
            name: block[start : start + sizes[name]].view(dtype).reshape(shape)
            for start, (name, (shape, dtype)) in zip([0, *ends], tensors.items(), strict=False)
        }

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


def _aligned_bytes(size: int) -> NDArray[np.uint8]:
    block = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + size]


@dataclass(frozen=True)
class PlainReplay:
    """A Replay that records nothing and runs the work each time."""

    run: Callable[[], None]

    def close(self) -> None:
        pass
