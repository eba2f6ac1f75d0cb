"""Device memory: one block allocated at the start, in which every batch finds its buffers at fixed places."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...batch_memory import DTYPE_BYTES, aligned
from ...spec import DType
from ..backend import TensorShape


@dataclass(frozen=True)
class DeviceBuffer:
    """A tensor in device memory."""

    address: int
    shape: tuple[int, ...]
    dtype: DType

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def rows(self, start: int, stop: int) -> "DeviceBuffer":
        """Return the view `self[start:stop]`."""
        row = math.prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]
        return DeviceBuffer(self.address + start * row, (stop - start, *self.shape[1:]), self.dtype)


@dataclass(frozen=True)
class Block:
    """Device memory from `address` on."""

    address: int
    size: int

    def place(self, tensors: Mapping[str, TensorShape]) -> dict[str, DeviceBuffer]:
        """Return buffers one behind the other from the start of the block: the same tensors are always at the same place."""
        placed: dict[str, DeviceBuffer] = {}
        offset = 0
        for name, (shape, dtype) in tensors.items():
            placed[name] = DeviceBuffer(self.address + offset, tuple(shape), dtype)
            offset += aligned(placed[name].size)
        assert offset <= self.size, (offset, self.size)
        return placed
