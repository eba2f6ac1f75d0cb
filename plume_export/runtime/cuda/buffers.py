"""The buffer half of the backend protocol in device memory. Nothing is allocated after the start but lasting constants."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ...batch_memory import BufferBytes
from ...recipe import ShapeRanges
from ...spec import DType
from ..backend import Array, Region, TensorShape
from .arena import Block, DeviceBuffer
from .device import CudaDevice, HostBytes
from .host_values import empty_stored, float32_from_stored, stored_from_array
from .recorded import RecordedWork

_UPLOADED_DTYPES: dict[str, DType] = {"float32": "float32", "int64": "int64"}


class CudaBuffers:
    """Buffers in one block of device memory that serves the largest shapes of a bundle.

    The block has three parts: what is uploaded, the visual embeddings of a batch, and what the batch computes. Each batch finds
    its buffers at the same places as the last one of its kind, so that recorded work stays valid.
    """

    # Each has a CUDA graph of its rollout, and two sessions.
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
        self._device.wait()  # the staging memory may still be read
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
        """Whether the work queued by this backend's sessions may be recorded now."""
        return self._is_recording

    def wait(self) -> None:
        self._device.wait()


def padded_length(tokens: int) -> int:
    """Return the length that a prompt is padded to: at most a third longer, and a few dozen lengths in all."""
    step = 32
    while tokens > 8 * step:
        step *= 2
    return -(-tokens // step) * step
