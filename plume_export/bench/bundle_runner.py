"""Runs a measured bundle in an Embedder, as a user would. Also defines a backend that times its calls."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..bundle import open_bundle
from ..inputs import Source
from ..runtime.backend import Array, Backend, BoundGraph, Buffer, Region, Replay, Session, TensorShape
from ..runtime.embedder import Embedder
from ..runtime.numpy_buffers import PlainReplay
from ..runtime.open_backend import open_backend
from ..spec import DType, GraphName
from ..stages import FloatArray
from .worker_messages import BundleCandidate, RolloutTime

Returned = TypeVar("Returned")
# What a timed call does: run a graph, or copy.
CallKind = GraphName | Literal["copy"]


@dataclass
class CallLog:
    """The calls and their seconds, in order."""

    calls: list[tuple[CallKind, float]] = field(default_factory=list)


class TimedBackend:
    """A backend that wraps another one. After each run and each copy it waits for the device, then records the time.

    No CUDA graph is used, so that every run is a separate call.
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
    """A session whose bound graphs record their times."""

    session: Session
    timed: Callable[[Callable[[], None]], None]

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> BoundGraph:
        return TimedGraph(self.session.bind(inputs, outputs), self.timed)

    def close(self) -> None:
        self.session.close()


@dataclass(frozen=True)
class TimedGraph:
    """A bound graph that records the time of each run."""

    graph: BoundGraph
    timed: Callable[[Callable[[], None]], None]

    def run(self) -> None:
        self.timed(self.graph.run)


class BundleRunner:
    """An Embedder with its stopwatch."""

    def __init__(self, candidate: BundleCandidate) -> None:
        self._candidate = candidate
        self._embedder = Embedder(candidate.path, threads=candidate.threads, verify_hashes=candidate.verify_hashes)

    def embed(self, sources: Sequence[Source], batch_size: int) -> FloatArray:
        self._embedder.stopwatch.reset()
        return self._embedder.embed([source.read() for source in sources], batch_size=batch_size)

    def stage_seconds(self) -> dict[str, float]:
        return dict(self._embedder.stopwatch.seconds)

    def time_rollout(self, source: Source, runs: int) -> list[RolloutTime]:
        """Return the times of several rollouts. The normal embedder is closed first, so that the bundle is in memory once."""
        self.close()
        bundle = open_bundle(self._candidate.path, verify_hashes=False)
        log = CallLog()
        backend = TimedBackend(open_backend(bundle, threads=self._candidate.threads), log)
        with Embedder(bundle, backend=backend) as embedder:
            embedder.embed([source.read()])
            return [_time_rollout(embedder, source, log) for _ in range(runs)]

    def close(self) -> None:
        self._embedder.close()


def _time_rollout(embedder: Embedder, source: Source, log: CallLog) -> RolloutTime:
    log.calls.clear()
    embedder.stopwatch.reset()
    embedder.embed([source.read()])
    kinds = [kind for kind, _ in log.calls]
    rollout = log.calls[kinds.index("prefill") + 1 :]
    return RolloutTime(
        total=embedder.stopwatch.seconds["rollout"],
        runs=[seconds for kind, seconds in rollout if kind == "latent_step"],
        copies=sum(seconds for kind, seconds in rollout if kind == "copy"),
    )
