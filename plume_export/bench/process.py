"""The worker processes of the candidates, and the order in which they run."""

import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from ..errors import PlumeExportError
from ..progress import Report
from .worker_messages import Candidate, Done, Embed, Embedded, Failed, Load, PytorchCandidate, Reply, Request

_TAIL_LINES = 12
_CHUNK_BYTES = 1 << 16
_END_S = 10.0
Expected = TypeVar("Expected", bound=Reply)


class WorkerError(PlumeExportError):
    """A worker process that ended or timed out."""


class WorkerProcess:
    """Runs `plume_export.bench.worker` for one candidate. A context manager, which ends the process on exit."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "plume_export.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Request, expected: type[Expected], *, timeout_s: float | None = None) -> Expected:
        """Send a request and return the reply. Raises the worker's error, and WorkerError if it dies or times out."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
        except BrokenPipeError:
            raise self._died() from None
        reply = msgspec.json.decode(self._read_line(timeout_s), type=Reply)
        if isinstance(reply, Failed):
            raise PlumeExportError(f"{self.name}: {reply.message}", fix=reply.fix)
        assert isinstance(reply, expected), reply
        return reply

    def close(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process.stdout.close()
        self._stderr.close()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.kill()  # it may be in a long computation
        self.close()

    def _read_line(self, timeout_s: float | None) -> bytes:
        assert self._process.stdout is not None
        until = None if timeout_s is None else time.monotonic() + timeout_s
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                left = None if until is None else max(0.0, until - time.monotonic())
                if not selector.select(left):
                    self.kill()
                    raise WorkerError(f"{self.name} did not answer within {timeout_s:.0f} s.", fix="omit it")
                chunk = self._process.stdout.read(_CHUNK_BYTES)
                if not chunk:
                    raise self._died()
                line += chunk
        return line

    def _died(self) -> WorkerError:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        said = "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    nothing"
        return WorkerError(
            f"The process of {self.name} exited with code {code}. Its last output:\n{said}",
            fix="a code of -9 means that memory ran out: end other programs, or measure fewer candidates at a time"
            if code == -9
            else f"omit {self.name}, or solve the problem in its output",
        )


# For each batch shape, a CUDA graph is recorded in the second run and launched from the third on.
_WARM_UP_RUNS = 3
# Time limit of torch.compile for one input.
COMPILE_LIMIT_S = 900.0


# A file and its row numbers.
Rows: TypeAlias = tuple[Path, Sequence[int]]


@dataclass(frozen=True)
class WarmWorkers:
    """Workers by candidate, in order. `not_run` maps candidates that torch.compile could not compile to the reason."""

    workers: dict[str, WorkerProcess]
    not_run: dict[str, str]


@contextmanager
def warm_workers(candidates: Sequence[Candidate], inputs: Rows, texts: Rows, report: Report) -> Iterator[WarmWorkers]:
    """Yield workers that have embedded every input several times and every text once. Their processes end afterwards.

    A candidate with torch.compile that fails or times out during warm-up is left out. Raises PlumeExportError if another one
    fails.
    """
    with ExitStack() as opened:
        workers, not_run = {}, {}
        for candidate in candidates:
            report(f"loading {candidate.name}")
            is_compiled = isinstance(candidate, PytorchCandidate) and candidate.is_compiled
            worker = WorkerProcess(candidate.name)
            opened.push(worker)
            try:
                _warm_up(worker, candidate, inputs, texts, COMPILE_LIMIT_S if is_compiled else None)
            except PlumeExportError as error:
                if not is_compiled:
                    raise
                not_run[candidate.name] = error.message.strip().splitlines()[-1].strip()
                worker.kill()
                continue
            workers[candidate.name] = worker
        yield WarmWorkers(workers, not_run)


def _warm_up(worker: WorkerProcess, candidate: Candidate, inputs: Rows, texts: Rows, timeout_s: float | None) -> None:
    worker.ask(Load(candidate), Done)
    for (file, rows), times in ((inputs, _WARM_UP_RUNS), (texts, 1)):
        for row in rows:
            for _ in range(times):
                worker.ask(Embed(str(file), [row], 1), Embedded, timeout_s=timeout_s)


Name = TypeVar("Name")
# Pause between two runs: threads that still spin after a run would slow down the next one.
PAUSE_S = 0.05


def rotated_rounds(names: Sequence[Name], rounds: int) -> Iterator[list[Name]]:
    """Yield the order of the names in each round. It rotates by one from round to round: A B C, B C A, C A B, ..."""
    for number in range(rounds):
        first = number % len(names)
        yield [*names[first:], *names[:first]]
