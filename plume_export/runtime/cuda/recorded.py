"""Work on fixed buffers that becomes one CUDA graph."""

from collections.abc import Callable
from typing import Any

from .device import CudaDevice


class RecordedWork:
    """Done plainly at first, recorded when it comes again, launched as one CUDA graph from then on.

    It is recorded right behind a plain run of the same shapes: TensorRT does part of its work only in the first run after a
    change of shapes, and that part must not be recorded. `is_recordable` is asked each time until it says yes.
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
        self._work = _nothing  # whoever asked for the work holds this in turn


def _nothing() -> None:
    pass
