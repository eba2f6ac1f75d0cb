"""A backend that notes how long each of its calls takes, for the pass that looks into the rollout."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...runtime.backend import Array, Backend, BoundGraph, Buffer, Region, Replay, Session, TensorShape
from ...runtime.numpy_buffers import PlainReplay
from ...spec import DType, GraphName

Returned = TypeVar("Returned")
# A graph that was run, or data that was moved.
CallKind = GraphName | Literal["copy"]


@dataclass
class CallLog:
    """What was called and the seconds it took, in order."""

    calls: list[tuple[CallKind, float]] = field(default_factory=list)


class TimedBackend:
    """Does what another backend does, and waits for each run and each copy before it notes the time.

    Nothing is replayed as a whole: every run is a call of its own.
    """

    def __init__(self, backend: Backend, log: CallLog) -> None:
        self._backend, self._log = backend, log
        self.kept_batches = backend.kept_batches

    def session(self, graph: GraphName) -> Session:
        return TimedSession(self._backend.session(graph), lambda work: self._timed(graph, work))

    def padded_tokens(self, tokens: int) -> int:
        return self._backend.padded_tokens(tokens)

    def constant(self, array: Array, dtype: DType) -> Buffer:
        return self._backend.constant(array, dtype)

    def upload(self, arrays: Mapping[str, Array]) -> dict[str, Buffer]:
        return self._timed("copy", lambda: self._backend.upload(arrays))

    def allocate(self, region: Region, tensors: Mapping[str, TensorShape]) -> dict[str, Buffer]:
        return self._backend.allocate(region, tensors)

    def rows(self, buffer: Buffer, start: int, stop: int) -> Buffer:
        return self._backend.rows(buffer, start, stop)

    def copy(self, source: Buffer, target: Buffer) -> None:
        self._timed("copy", lambda: self._backend.copy(source, target))

    def clear(self, buffer: Buffer) -> None:
        self._timed("copy", lambda: self._backend.clear(buffer))

    def download(self, buffer: Buffer) -> NDArray[np.float32]:
        return self._timed("copy", lambda: self._backend.download(buffer))

    def replayable(self, work: Callable[[], None]) -> Replay:
        return PlainReplay(work)

    def wait(self) -> None:
        self._backend.wait()

    def close(self) -> None:
        self._backend.close()

    def _timed(self, kind: CallKind, work: Callable[[], Returned]) -> Returned:
        start = time.perf_counter()
        result = work()
        self._backend.wait()
        self._log.calls.append((kind, time.perf_counter() - start))
        return result


@dataclass(frozen=True)
class TimedSession:
    """A session whose bound graphs are run by `timed`."""

    session: Session
    timed: Callable[[Callable[[], None]], None]

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> BoundGraph:
        return TimedGraph(self.session.bind(inputs, outputs), self.timed)

    def close(self) -> None:
        self.session.close()


@dataclass(frozen=True)
class TimedGraph:
    """A bound graph that is run by `timed`."""

    graph: BoundGraph
    timed: Callable[[Callable[[], None]], None]

    def run(self) -> None:
        self.timed(self.graph.run)
