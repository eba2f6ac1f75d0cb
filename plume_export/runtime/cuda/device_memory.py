"""Device memory: one block allocated at the start, buffers at fixed positions in it, and weights that engines share."""

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...batch_memory import DTYPE_BYTES, BufferBytes, aligned
from ...bundle import WEIGHTS, Bundle
from ...recipe import ShapeRanges
from ...spec import DType
from ..backend import Array, Region, TensorShape
from .device import CudaDevice, HostBytes
from .recorded import RecordedWork


@dataclass(frozen=True)
class DeviceBuffer:
    """A tensor in device memory."""

    address: int
    shape: tuple[int, ...]
    dtype: DType

    @property
    def size(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def rows(self, start: int, stop: int) -> "DeviceBuffer":
        """Return the view `self[start:stop]`."""
        row = math.prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]
        return DeviceBuffer(self.address + start * row, (stop - start, *self.shape[1:]), self.dtype)


@dataclass(frozen=True)
class Block:
    """A block of device memory that starts at `address`."""

    address: int
    size: int

    def place(self, tensors: Mapping[str, TensorShape]) -> dict[str, DeviceBuffer]:
        """Return buffers placed one after another from the start of the block. The same tensors always get the same
        addresses.
        """
        placed: dict[str, DeviceBuffer] = {}
        offset = 0
        for name, (shape, dtype) in tensors.items():
            placed[name] = DeviceBuffer(self.address + offset, tuple(shape), dtype)
            offset += aligned(placed[name].size)
        assert offset <= self.size, (offset, self.size)
        return placed


def stored_from_array(array: Array, dtype: DType) -> Array:
    """Round an array to `dtype` (to nearest even). bfloat16 comes as uint16 with the same bits, because numpy lacks it."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, dtype)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (np.where(np.isnan(array), bits | 0x10000, rounded) >> 16).astype(np.uint16)


def empty_stored(shape: tuple[int, ...], dtype: DType) -> Array:
    """Return an uninitialised array for the bytes of a tensor."""
    return np.empty(shape, np.uint16 if dtype == "bfloat16" else dtype)


def float32_from_stored(stored: Array, dtype: DType) -> NDArray[np.float32]:
    """Return the values of stored bytes as float32."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


_UPLOADED_DTYPES: dict[str, DType] = {"float32": "float32", "int64": "int64"}


class CudaBuffers:
    """Buffers in one block of device memory, which is large enough for a bundle's largest shapes.

    The block has three parts: uploaded inputs, the visual embeddings of a batch, and the results of the batch. Batches of the
    same shape get the same addresses, so their CUDA graphs stay valid.
    """

    # For each cached batch shape there are a CUDA graph of the rollout and two sessions.
    kept_batches = 8

    def __init__(self, device: CudaDevice, limits: ShapeRanges, sizes: BufferBytes, *, is_recording: bool) -> None:
        self._device, self._limits, self._is_recording = device, limits, is_recording
        self._uploads = Block(device.allocate(sizes.uploads, "the block for inputs"), sizes.uploads)
        self._regions: dict[Region, Block] = {
            "media": Block(device.allocate(sizes.media, "the block for visual embeddings"), sizes.media),
            "batch": Block(device.allocate(sizes.batch, "the block for caches and states"), sizes.batch),
        }
        self._staging: HostBytes = device.allocate_pinned(0)

    def padded_tokens(self, tokens: int) -> int:
        least, _, most = self._limits.prompt_tokens
        return min(max(padded_length(tokens), least), most)

    def constant(self, array: Array, dtype: DType) -> DeviceBuffer:
        stored = stored_from_array(array, dtype)
        buffer = DeviceBuffer(self._device.allocate(stored.nbytes, "a constant"), array.shape, dtype)
        self._device.copy_in(stored, buffer.address)
        self._device.wait()
        return buffer

    def upload(self, arrays: Mapping[str, Array]) -> dict[str, DeviceBuffer]:
        shapes = {name: TensorShape(array.shape, _UPLOADED_DTYPES[array.dtype.name]) for name, array in arrays.items()}
        placed = self._uploads.place(shapes)
        last = list(placed.values())[-1]
        size = last.address + last.size - self._uploads.address
        self._device.wait()  # an earlier copy may still be reading the staging memory
        if len(self._staging) < size:
            larger = self._device.allocate_pinned(size)
            self._device.free_pinned(self._staging)
            self._staging = larger
        for name, array in arrays.items():
            offset = placed[name].address - self._uploads.address
            self._staging[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._device.copy_in(self._staging[:size], self._uploads.address)
        return placed

    def allocate(self, region: Region, tensors: Mapping[str, TensorShape]) -> dict[str, DeviceBuffer]:
        return self._regions[region].place(tensors)

    def rows(self, buffer: DeviceBuffer, start: int, stop: int) -> DeviceBuffer:
        return buffer.rows(start, stop)

    def copy(self, source: DeviceBuffer, target: DeviceBuffer) -> None:
        assert source.size == target.size, (source, target)
        self._device.copy(source.address, target.address, source.size)

    def clear(self, buffer: DeviceBuffer) -> None:
        self._device.clear(buffer.address, buffer.size)

    def download(self, buffer: DeviceBuffer) -> NDArray[np.float32]:
        stored = empty_stored(buffer.shape, buffer.dtype)
        self._device.copy_out(buffer.address, stored)
        return float32_from_stored(stored, buffer.dtype)

    def replayable(self, work: Callable[[], None]) -> RecordedWork:
        return RecordedWork(self._device, work, self.is_recordable)

    def is_recordable(self) -> bool:
        """Return True if the work queued by this backend's sessions can be recorded now."""
        return self._is_recording

    def wait(self) -> None:
        self._device.wait()


def padded_length(tokens: int) -> int:
    """Return the padded length of a prompt: at most a third longer, from a few dozen possible lengths."""
    step = 32
    while tokens > 8 * step:
        step *= 2
    return -(-tokens // step) * step


_DTYPES: dict[str, DType] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8"}
_LENGTH = struct.Struct("<Q")


class SharedWeights:
    """Copies tensors to the device on first use. The file is memory-mapped, so the host needs no copy."""

    def __init__(self, bundle: Bundle, device: CudaDevice) -> None:
        self._file, self._device = bundle.file(WEIGHTS), device
        self._loaded: dict[str, DeviceBuffer] = {}

    def load(self, name: str) -> DeviceBuffer:
        """Return a tensor on the device."""
        if name not in self._loaded:
            with self._file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                self._loaded[name] = self._copied(name, mapped)
        return self._loaded[name]

    def _copied(self, name: str, mapped: mmap.mmap) -> DeviceBuffer:
        (length,) = _LENGTH.unpack_from(mapped)
        entry: dict[str, Any] = msgspec.json.decode(mapped[_LENGTH.size : _LENGTH.size + length])[name]
        start, stop = entry["data_offsets"]
        address = self._device.allocate(stop - start, "the weights")
        values = np.frombuffer(mapped, np.uint8, stop - start, _LENGTH.size + length + start)
        try:
            self._device.copy_in(values, address)
            self._device.wait()
        finally:
            del values  # it keeps the mapping open
        return DeviceBuffer(address, tuple(entry["shape"]), _DTYPES[entry["dtype"]])
