"""The CUDA device: memory, copies, one stream and CUDA graphs. This is the only module that calls cuda-python."""

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtraError, PlumeExportError
from ...machine.software import cuda_version_text
from ...machine.tensorrt_variant import device_title
from ..backend import Array

HostBytes = NDArray[np.uint8]


class CudaDevice:
    """The first CUDA device with one stream, on which all work is queued in order. A context manager.

    Addresses are integers. `extra` is the pip extra that installs cuda-python; the error for a missing cuda-python names it.

    Raises PlumeExportError if there is no driver, if the driver is too old for the CUDA runtime, and if there is no GPU.
    Source: the CUDA runtime API, through cuda-python's `cuda.bindings.runtime`.
    """

    def __init__(self, extra: str) -> None:
        self._cudart = import_cudart(extra)
        check_driver(self._cudart)
        properties = self._call("cudaGetDeviceProperties", 0)
        self.title = device_title(properties)
        self.name: str = _text(properties.name)
        self.compute_capability = f"{properties.major}.{properties.minor}"
        self.is_integrated = bool(properties.integrated)
        self._stream = self._call("cudaStreamCreateWithFlags", self._cudart.cudaStreamNonBlocking)
        self._allocated: list[int] = []
        self._pinned: list[int] = []
        self._graphs: list[Any] = []
        self._is_closed = False

    @property
    def stream(self) -> int:
        """Handle of the stream, for libraries that queue work on it."""
        return int(self._stream)

    def free_bytes(self) -> int:
        """Return the free device memory in bytes."""
        free, _ = self._call("cudaMemGetInfo")
        return int(free)

    def allocate(self, size: int, purpose: str) -> int:
        """Return the address of `size` zeroed bytes, aligned to at least 256 bytes; `close` frees them.

        Raises PlumeExportError if the device has too little memory.
        """
        address = self._allocated_address("cudaMalloc", purpose, size)
        self._allocated.append(address)
        self.clear(address, size)
        return address

    def allocate_pinned(self, size: int) -> HostBytes:
        """Return pinned host memory, from which the device can copy asynchronously; `close` frees it."""
        address = self._allocated_address("cudaHostAlloc", "host memory for inputs", size, 0)
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, memory: HostBytes) -> None:
        """Free pinned memory earlier than `close` does."""
        address = memory.ctypes.data
        self._pinned.remove(address)
        self._call("cudaFreeHost", address)

    def copy_in(self, source: Array, target: int) -> None:
        """Queue a copy from host memory, which must stay unchanged until `wait`."""
        self._copy(target, source.ctypes.data, source.nbytes, "cudaMemcpyHostToDevice")

    def copy_out(self, source: int, target: Array) -> None:
        """Copy to host memory and wait for it."""
        self._copy(target.ctypes.data, source, target.nbytes, "cudaMemcpyDeviceToHost")
        self.wait()

    def copy(self, source: int, target: int, size: int) -> None:
        """Queue a copy within the device."""
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice")

    def clear(self, address: int, size: int) -> None:
        """Queue setting bytes to zero."""
        if size:
            self._call("cudaMemsetAsync", address, 0, size, self._stream)

    def record(self, work: Callable[[], None]) -> Any:
        """Capture the GPU work that `work` queues, without running it. Return the CUDA graph, for use with `launch`."""
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            _, graph = self._cudart.cudaStreamEndCapture(self._stream)
            if graph is not None:
                self._cudart.cudaGraphDestroy(graph)
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        self._graphs.append(executable)
        return executable

    def launch(self, graph: Any) -> None:
        """Queue one run of a CUDA graph."""
        self._call("cudaGraphLaunch", graph, self._stream)

    def free_graph(self, graph: Any) -> None:
        """Free a CUDA graph earlier than `close` does."""
        self.wait()
        self._graphs.remove(graph)
        self._call("cudaGraphExecDestroy", graph)

    def wait(self) -> None:
        """Wait until all queued work is finished."""
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Wait, then free everything. Raises the first error after everything was freed. Closing again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        with ExitStack() as frees:  # runs all callbacks, last first, even if one fails
            frees.callback(self._call, "cudaStreamDestroy", self._stream)
            for name, handles in (
                ("cudaFreeHost", self._pinned),
                ("cudaFree", self._allocated),
                ("cudaGraphExecDestroy", self._graphs),
            ):
                for handle in handles:
                    frees.callback(self._call, name, handle)
            frees.callback(self.wait)

    def _allocated_address(self, name: str, purpose: str, size: int, *flags: int) -> int:
        code, address = getattr(self._cudart, name)(max(size, 1), *flags)
        if code == self._cudart.cudaError_t.cudaErrorMemoryAllocation:
            self._cudart.cudaGetLastError()  # clear the error, because other libraries check it
            raise PlumeExportError(
                f"{self.name} has {self.free_bytes() / 1e6:,.0f} MB free; {purpose} needs {size / 1e6:,.0f} MB.",
                fix="end other programs on the GPU, or compile for a --target with smaller shapes",
            )
        self._check(name, code)
        return int(address)

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        if size:
            self._call("cudaMemcpyAsync", target, source, size, getattr(self._cudart.cudaMemcpyKind, kind), self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime. Return its result, or a tuple if it has several."""
        code, *results = getattr(self._cudart, name)(*arguments)
        self._check(name, code)
        return results[0] if len(results) == 1 else tuple(results)

    def _check(self, name: str, code: Any) -> None:
        if code != self._cudart.cudaError_t.cudaSuccess:
            raise PlumeExportError(f"{name} failed: {_reason(self._cudart, code)}.", fix="plume-export doctor")


def import_cudart(extra: str) -> Any:
    """Import cuda-python's bindings of the CUDA runtime. Raises MissingExtraError."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise MissingExtraError("cuda-bindings", extra) from None
    return runtime


def check_driver(cudart: Any) -> None:
    """Raise PlumeExportError if there is no driver, if it is older than the CUDA runtime, or if there is no GPU."""
    _, driver = cudart.cudaDriverGetVersion()
    if driver == 0:
        raise PlumeExportError("No NVIDIA driver was found, but this bundle needs a GPU.", fix="run it on a machine with a GPU")
    code, count = cudart.cudaGetDeviceCount()
    _, runtime = cudart.cudaRuntimeGetVersion()
    if code == cudart.cudaError_t.cudaErrorInsufficientDriver:
        served, needed = cuda_version_text(driver), cuda_version_text(runtime)
        raise PlumeExportError(
            f"The NVIDIA driver supports CUDA {served}, but the installed CUDA runtime is {needed}.",
            fix=f"update the driver, or install packages for CUDA {driver // 1000} (see docs/targets.md)",
        )
    if code != cudart.cudaError_t.cudaSuccess or count == 0:
        raise PlumeExportError(f"No CUDA device can be used: {_reason(cudart, code)}.", fix="plume-export doctor")


def _reason(cudart: Any, code: Any) -> str:
    _, text = cudart.cudaGetErrorString(code)
    return f"{_text(text)} ({getattr(code, 'name', code)})"


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace").rstrip("\0") if isinstance(value, bytes) else value
