# ruff: noqa: N802, N815 - the names are CUDA's
"""A CUDA device in host memory: the calls of cuda-python's runtime module that the project makes.

Work is queued and done only when the stream is waited for, so that a missing wait shows; every address of the device must lie
in memory that is allocated then. Recorded work is done when the graph is launched, with the addresses of the recording.
"""

import ctypes
import enum
from bisect import bisect_right
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

_ALIGNMENT = 256
STREAM = 77
_DIRTY = 0x7F  # what new memory holds: a NaN in float16 and bfloat16, huge in float32


class CudaError(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class MemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


Work = Callable[[], None]


class EmulatedCuda:
    """Stands for the module `cuda.bindings.runtime`. Its counters tell what was done."""

    cudaError_t = CudaError
    cudaMemcpyKind = MemcpyKind
    cudaStreamCaptureMode = CaptureMode
    cudaStreamNonBlocking = 1

    def __init__(self, *, memory_bytes: int = 1 << 32, driver: int = 13000, runtime: int = 13000, gpus: int = 1) -> None:
        self.memory_bytes, self.driver, self.runtime, self.gpus = memory_bytes, driver, runtime, gpus
        self.blocks: dict[int, tuple[int, Any]] = {}  # address -> size, memory
        self.host_blocks: dict[int, Any] = {}
        self.pinned_limit = memory_bytes
        self.queue: list[Work] = []
        self.recording: list[Work] | None = None
        self.allocations = self.waits = self.launches = 0
        self.is_stream_there = False
        self.copies: dict[str, int] = {"in": 0, "out": 0}

    # What the project calls.

    def cudaDriverGetVersion(self) -> tuple[CudaError, int]:
        return CudaError.cudaSuccess, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[CudaError, int]:
        return CudaError.cudaSuccess, self.runtime

    def cudaGetDeviceCount(self) -> tuple[CudaError, int]:
        if self.driver // 1000 < self.runtime // 1000:
            return CudaError.cudaErrorInsufficientDriver, 0
        return (CudaError.cudaSuccess if self.gpus else CudaError.cudaErrorNoDevice), self.gpus

    def cudaGetErrorString(self, code: CudaError) -> tuple[CudaError, bytes]:
        return CudaError.cudaSuccess, b"as emulated"

    def cudaGetDeviceProperties(self, index: int) -> tuple[CudaError, Any]:
        return CudaError.cudaSuccess, SimpleNamespace(name=b"Emulated GPU\0\0", major=8, minor=9, integrated=0)

    def cudaMemGetInfo(self) -> tuple[CudaError, int, int]:
        return CudaError.cudaSuccess, self.memory_bytes - self.used_bytes, self.memory_bytes

    def cudaGetLastError(self) -> tuple[CudaError]:
        return (CudaError.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[CudaError, int]:
        assert self.recording is None
        if size > self.memory_bytes - self.used_bytes:
            return CudaError.cudaErrorMemoryAllocation, 0
        self.allocations += 1
        memory = (ctypes.c_uint8 * (size + _ALIGNMENT))()
        address = -(-ctypes.addressof(memory) // _ALIGNMENT) * _ALIGNMENT
        ctypes.memset(address, _DIRTY, size)
        self.blocks[address] = (size, memory)
        return CudaError.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[CudaError]:
        assert self.recording is None
        del self.blocks[address]
        return (CudaError.cudaSuccess,)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[CudaError, int]:
        assert self.recording is None
        if size > self.pinned_limit:
            return CudaError.cudaErrorMemoryAllocation, 0
        self.allocations += 1
        memory = (ctypes.c_uint8 * size)()
        self.host_blocks[ctypes.addressof(memory)] = memory
        return CudaError.cudaSuccess, ctypes.addressof(memory)

    def cudaFreeHost(self, address: int) -> tuple[CudaError]:
        del self.host_blocks[address]
        return (CudaError.cudaSuccess,)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[CudaError]:
        self.check_stream(stream)
        self.check(address, size)
        self.enqueue(lambda: self._in_device(address, size) and ctypes.memset(address, value, size))
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: MemcpyKind, stream: int) -> tuple[CudaError]:
        def copy() -> None:
            if kind != MemcpyKind.cudaMemcpyHostToDevice:
                self.check(source, size)
            if kind != MemcpyKind.cudaMemcpyDeviceToHost:
                self.check(target, size)
            ctypes.memmove(target, source, size)

        self.check_stream(stream)
        assert self.recording is None or kind == MemcpyKind.cudaMemcpyDeviceToDevice
        self.copies["in"] += kind == MemcpyKind.cudaMemcpyHostToDevice
        self.copies["out"] += kind == MemcpyKind.cudaMemcpyDeviceToHost
        self.enqueue(copy)
        return (CudaError.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[CudaError, int]:
        self.is_stream_there = True
        return CudaError.cudaSuccess, STREAM

    def cudaStreamSynchronize(self, stream: int) -> tuple[CudaError]:
        self.check_stream(stream)
        if self.recording is not None:
            return (CudaError.cudaErrorStreamCaptureUnsupported,)
        self.waits += 1
        work, self.queue = self.queue, []
        for task in work:
            task()
        return (CudaError.cudaSuccess,)

    def cudaStreamDestroy(self, stream: int) -> tuple[CudaError]:
        self.check_stream(stream)
        self.is_stream_there = False
        return (CudaError.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: CaptureMode) -> tuple[CudaError]:
        self.recording = []
        return (CudaError.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[CudaError, list[Work] | None]:
        recorded, self.recording = self.recording, None
        return CudaError.cudaSuccess, recorded

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[CudaError, "RecordedGraph"]:
        return CudaError.cudaSuccess, RecordedGraph(list(graph))

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[CudaError]:
        return (CudaError.cudaSuccess,)

    def cudaGraphLaunch(self, graph: "RecordedGraph", stream: int) -> tuple[CudaError]:
        self.check_stream(stream)
        assert not graph.is_destroyed
        self.launches += 1
        self.queue.extend(graph.work)
        return (CudaError.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: "RecordedGraph") -> tuple[CudaError]:
        graph.is_destroyed = True
        return (CudaError.cudaSuccess,)

    # What emulated engines and tests use.

    @property
    def used_bytes(self) -> int:
        return sum(size for size, _ in self.blocks.values())

    def enqueue(self, work: Callable[[], Any]) -> None:
        """Queue work, or record it."""
        (self.queue if self.recording is None else self.recording).append(work)

    def check_stream(self, stream: int) -> None:
        """Assert that the stream is the one that was made, and not destroyed."""
        assert self.is_stream_there
        assert stream == STREAM

    def check(self, address: int, size: int) -> None:
        """Assert that bytes lie within one allocation of the device."""
        starts = sorted(self.blocks)
        index = bisect_right(starts, address) - 1
        assert index >= 0, hex(address)
        assert address + size <= starts[index] + self.blocks[starts[index]][0], (hex(address), size)

    def _in_device(self, address: int, size: int) -> bool:
        self.check(address, size)
        return True


class RecordedGraph:
    """An instantiated CUDA graph."""

    def __init__(self, work: list[Work]) -> None:
        self.work, self.is_destroyed = work, False
