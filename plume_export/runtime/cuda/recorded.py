"""GPU work on fixed buffers that is recorded (captured) as one CUDA graph and then replayed."""

from collections.abc import Callable
from typing import Any

from .device import CudaDevice


class RecordedWork:
    """Runs work normally at first, records it directly after the second run, and from then on launches the CUDA graph.

    The first run after a change of shapes contains work that TensorRT does only once and that must not be recorded. After every
    later run, `is_recordable` is called until it returns True.
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
        self._work = _nothing  # break the reference cycle: the owner of `work` also refers to this object


def _nothing() -> None:
    pass
