"""Work on fixed buffers that is recorded as one CUDA graph."""

from collections.abc import Callable
from typing import Any

from .device import CudaDevice


class RecordedWork:
    """Runs work normally at first, records it on a repeated call, and then launches it as one CUDA graph.

    It is recorded directly after a normal run with the same shapes. TensorRT does part of its work only in the first run after
    a change of shapes, and that part must not be recorded. `is_recordable` is called each time until it returns True.
    """

    def __init__(self, device: CudaDevice, work: Callable[[], None], is_recordable: Callable[[], bool]) -> None:
        self._device, self._work, self._is_recordable = device, work, is_recordable
        self._runs = 0
        self._graph: Any = None

    def run(self) -> None:
        if self._graph is not None:
            self._device.launch(self._graph)
            return
        self._work()
        self._runs += 1
        if self._runs > 1 and self._is_recordable():
            self._graph = self._device.record(self._work)

    def close(self) -> None:
        """Free the CUDA graph."""
        if self._graph is not None:
            self._device.free_graph(self._graph)
            self._graph = None
        self._work = _nothing  # the owner of the work refers to this object in turn


def _nothing() -> None:
    pass
