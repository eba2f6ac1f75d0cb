"""Runs cases in processes of their own, and ends those that hang or take too much memory."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import psutil

from .worker import Done, Job, work

_POLL_S = 0.2
# A process that sleeps is given more time than one that computes. One that waits for a busy machine is not asleep.
_SLEEPING_FACTOR = 6
_JOB_CASES = 2500
_LOG_BYTES = 4000


@dataclass(frozen=True)
class Limits:
    """What one case may take, and all of them. `hang_s` is of processor time, or six times that asleep."""

    hang_s: float = 10.0
    memory_bytes: int = 2 << 30
    run_s: float = math.inf


@dataclass(frozen=True)
class Failure:
    """Why a process did not get to the end of a case, or may not go on."""

    kind: Literal["crash", "hang", "memory"]
    detail: str


@dataclass(frozen=True)
class Finding:
    """A case in which a reader did something else than to return or to raise PlumeExportError."""

    surface: str
    seed: int
    number: int
    kind: Literal["exception", "crash", "hang", "memory"]
    detail: str

    def __str__(self) -> str:
        command = f"python -m tests.fuzz --surface {self.surface} --seed {self.seed} --case {self.number}"
        return f"{self.kind}: {command}\n{self.detail.strip()}"


@dataclass
class Tally:
    """The cases of one surface by outcome, and the memory of the processes that ran them."""

    cases: int = 0
    accepted: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)
    peak_bytes: int = 0
    end_bytes: int = 0

    def add(self, done: Done | Failure) -> None:
        self.cases += 1
        if isinstance(done, Failure):
            return
        self.accepted += done.outcome == "accepted"
        self.refused += done.outcome == "refused"
        self.peak_bytes, self.end_bytes = max(self.peak_bytes, done.peak_bytes), done.resident_bytes


def fuzz(
    cases: dict[str, int],
    *,
    seed: int,
    workers: int,
    limits: Limits = Limits(),
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Tally]:
    """Run so many cases of every surface. Of many, each process takes up to 2,500 of one surface."""
    jobs = [
        Job(surface, first, min(first + _JOB_CASES, count))
        for first in range(0, max(cases.values()), _JOB_CASES)
        for surface, count in cases.items()
        if first < count
    ]
    is_short = sum(cases.values()) <= _JOB_CASES
    groups = [jobs[worker::workers] for worker in range(workers)] if is_short else [[job] for job in jobs]
    tallies = {surface: Tally() for surface in cases}
    run = _Run(tallies, seed, limits, time.monotonic() + limits.run_s, report)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, ThreadPoolExecutor(workers) as threads:

        def work_through(index: int, group: list[Job]) -> None:
            directory = Path(scratch) / str(index)
            directory.mkdir()
            run.work_through(group, directory)

        for done in [threads.submit(work_through, index, group) for index, group in enumerate(groups) if group]:
            done.result()
    return tallies


@dataclass(frozen=True)
class _Run:
    """What the threads share."""

    tallies: dict[str, Tally]
    seed: int
    limits: Limits
    end_s: float
    report: Callable[[str], None]
    lock: Lock = field(default_factory=Lock)

    def work_through(self, jobs: Sequence[Job], directory: Path) -> None:
        """Run jobs in one process, and in another where that one ends before its time."""
        waiting = list(jobs)
        while waiting and time.monotonic() < self.end_s:
            with _Process(waiting, self.seed, directory) as process:
                is_lost = False
                while waiting and not is_lost and time.monotonic() < self.end_s:
                    message = process.next_message(self.limits)
                    if message is not None:
                        is_lost = self._add(message, waiting[0])
                        waiting[0] = replace(waiting[0], first=waiting[0].first + 1)
                        if waiting[0].first == waiting[0].last:
                            done = waiting.pop(0).surface
                            self.report(f"{done}: {self.tallies[done].cases} cases")
                            process.is_ready = False  # it writes the next surface's files, which may take long

    def _add(self, message: Done | Failure, job: Job) -> bool:
        """Return whether the process is lost."""
        if isinstance(message, Done) and message.peak_bytes > self.limits.memory_bytes:
            message = Failure("memory", f"{message.peak_bytes >> 20} MiB")
        with self.lock:
            tally = self.tallies[job.surface]
            tally.add(message)
            if isinstance(message, Failure) or message.outcome == "exception":
                kind = message.kind if isinstance(message, Failure) else "exception"
                tally.findings.append(Finding(job.surface, self.seed, job.first, kind, message.detail))
                self.report(str(tally.findings[-1]))
        return isinstance(message, Failure)


class _Process:
    """A worker process and the pipe that its results come through."""

    def __init__(self, jobs: Sequence[Job], seed: int, directory: Path) -> None:
        context: Any = get_context("spawn")
        self._connection, other_end = context.Pipe(duplex=False)
        self._log = directory / "log"
        self._process = context.Process(target=work, args=(other_end, list(jobs), seed, directory, self._log))
        self._process.start()
        other_end.close()
        self._watched = psutil.Process(self._process.pid)
        self.is_ready = False
        self._start()

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def next_message(self, limits: Limits) -> Done | Failure | None:
        """Wait for the end of a case, or return what came in its place. None: a surface is ready."""
        while not self._connection.poll(_POLL_S):
            failure = self._failure(limits)
            if failure is not None:
                return failure
        try:
            message: Done | None = self._connection.recv()
        except EOFError:
            self._process.join()
            if not self.is_ready:
                raise RuntimeError(f"the worker ended with {self._process.exitcode}:\n{self._tail()}") from None
            return Failure("crash", f"exit code {self._process.exitcode}\n{self._tail()}")
        self.is_ready = True
        self._start()
        return message

    def _start(self) -> None:
        self._cpu_start, self._last_cpu_s, self._awake_s = self._cpu_seconds(), 0.0, time.monotonic()

    def _failure(self, limits: Limits) -> Failure | None:
        try:
            resident_bytes = self._watched.memory_info().rss
            is_asleep = self._watched.status() == psutil.STATUS_SLEEPING
        except psutil.Error:  # it ended; the pipe says so next
            return None
        if resident_bytes > limits.memory_bytes:
            return Failure("memory", f"{resident_bytes >> 20} MiB")
        cpu_s, now_s = self._cpu_seconds() - self._cpu_start, time.monotonic()
        if not is_asleep or cpu_s != self._last_cpu_s:
            self._last_cpu_s, self._awake_s = cpu_s, now_s
        asleep_s = now_s - self._awake_s
        if self.is_ready and (cpu_s > limits.hang_s or asleep_s > _SLEEPING_FACTOR * limits.hang_s):
            return Failure("hang", f"{cpu_s:.1f} s of processor time, {asleep_s:.1f} s asleep\n{self._tail()}")
        return None

    def _cpu_seconds(self) -> float:
        try:
            times = self._watched.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _tail(self) -> str:
        return self._log.read_bytes()[-_LOG_BYTES:].decode(errors="replace") if self._log.exists() else ""


def shares(total: int, weights: dict[str, int]) -> dict[str, int]:
    """Split a number of cases by weight, every surface one at least; the first gets what is left."""
    all_weights = sum(weights.values())
    split = {name: max(1, total * weight // all_weights) for name, weight in weights.items()}
    first = next(iter(split))
    split[first] += total - sum(split.values())
    return split
