"""A worker process, `python -m plume_export.bench.worker`. It answers every request, a JSON line, with a JSON line."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from ..errors import PlumeExportError
from ..inputs import Source, sources_from_file
from ..machine.resident_memory import mapped_twice_bytes, resident_memory
from ..stages import FloatArray
from .worker_messages import (
    AskMemory,
    BundleCandidate,
    Candidate,
    Done,
    Embed,
    Embedded,
    Failed,
    Load,
    MeasureLimits,
    Memory,
    Reply,
    Request,
    RolloutTime,
    RolloutTimes,
    TimeRollout,
)


def main() -> None:
    """Answer requests from stdin. Output of libraries goes to stderr."""
    replies = _taken_stdout()
    worker = Worker()
    for line in sys.stdin.buffer:
        try:
            reply = worker.answer(msgspec.json.decode(line, type=Request))
        except PlumeExportError as error:
            reply = Failed(error.message, error.command_line_fix)
        replies.write(msgspec.json.encode(reply) + b"\n")
        replies.flush()
    worker.close()


class Worker:
    """Answers requests. A process loads one candidate at most."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._sources: dict[str, list[Source]] = {}

    def answer(self, request: Request) -> Reply:
        """Answer a request. Raises PlumeExportError."""
        answers: dict[type, Callable[[Any], Reply]] = {
            Load: self._load,
            Embed: self._embed,
            TimeRollout: self._time_rollout,
            AskMemory: lambda _: _memory(),
            MeasureLimits: _measure_limits,
        }
        return answers[type(request)](request)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()

    def _load(self, request: Load) -> Done:
        self._runner = open_runner(request.candidate)
        return Done()

    def _embed(self, request: Embed) -> Embedded:
        assert self._runner is not None
        sources = [self._source(request.file, row) for row in request.rows]
        start = time.perf_counter()
        embeddings = self._runner.embed(sources, request.batch_size)
        seconds = time.perf_counter() - start
        return Embedded(seconds, self._runner.stage_seconds(), embeddings.tobytes())

    def _time_rollout(self, request: TimeRollout) -> RolloutTimes:
        assert self._runner is not None
        return RolloutTimes(self._runner.time_rollout(self._source(request.file, request.row), request.runs))

    def _source(self, file: str, row: int) -> Source:
        if file not in self._sources:
            self._sources[file] = sources_from_file(Path(file))
        return self._sources[file][row]


def _memory() -> Memory:
    memory = resident_memory()
    return Memory(resident=memory.now, peak=memory.peak, mapped_twice=mapped_twice_bytes())


def _measure_limits(request: MeasureLimits) -> Reply:
    from .hardware_limits import measure_limits

    return measure_limits(request.bundle.path, threads=request.bundle.threads)


def _taken_stdout() -> IO[bytes]:
    """Return a stream to the original stdout. From now on stdout, also that of C libraries, goes to stderr."""
    sys.stdout.flush()
    taken = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return taken


class Runner(Protocol):
    """One loaded candidate. The caller that opened it must close it."""

    def embed(self, sources: Sequence[Source], batch_size: int) -> FloatArray:
        """Read the inputs, embed them, and return unit vectors [inputs, hidden] when all work is finished."""

    def stage_seconds(self) -> dict[str, float]:
        """Return the seconds of each stage of the last `embed`, or {} if the candidate does not report stages."""

    def time_rollout(self, source: Source, runs: int) -> list[RolloutTime]:
        """Return the parts of one input's rollout, for every run."""

    def close(self) -> None: ...


def open_runner(candidate: Candidate) -> Runner:
    """Load a candidate. Only the libraries that it needs are imported, so that its memory use is its own."""
    if isinstance(candidate, BundleCandidate):
        from .bundle_runner import BundleRunner

        return BundleRunner(candidate)
    from .pytorch_runner import PytorchRunner

    return PytorchRunner(candidate)


if __name__ == "__main__":
    main()
