"""Throughput of each candidate in inputs per second, by batch size."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..progress import Report
from .process import PAUSE_S, WorkerProcess, rotated_rounds
from .statistics import Spread, ratio_of, spread_of
from .worker_messages import BundleCandidate, Candidate, Embed, Embedded


class Throughput(msgspec.Struct, frozen=True):
    """Inputs per second, measured over `count` inputs of a set.

    `times_faster` is how many times faster the measured bundle is than this candidate at this batch size; None for the bundle
    itself. PyTorch takes one input at a time: its `batch_size` is 1, and the bundle's best batch size is compared with it.
    """

    inputs: str
    count: int
    candidate: str
    batch_size: int
    samples_per_s: Spread
    times_faster: float | None


def measure_throughput(
    workers: Mapping[str, WorkerProcess],
    candidates: Sequence[Candidate],
    batch_sizes: Sequence[int],
    inputs: tuple[str, Path, Sequence[int]],
    rounds: int,
    report: Report,
) -> list[Throughput]:
    """Measure every candidate at every batch size, interleaved. `inputs` is a name, a file and its rows."""
    name, file, rows = inputs
    report(f"throughput: {len(rows)} {name}")
    cells = [
        (candidate.name, size)
        for candidate in candidates
        for size in (batch_sizes if isinstance(candidate, BundleCandidate) else (1,))
    ]
    seconds: dict[tuple[str, int], list[float]] = {cell: [] for cell in cells}
    for number, order in enumerate(rotated_rounds(cells, rounds + 1)):
        for candidate, size in order:
            time.sleep(PAUSE_S)
            embedded = workers[candidate].ask(Embed(str(file), list(rows), size), Embedded)
            if number > 0:  # the first round warms up batches of this size
                seconds[candidate, size].append(embedded.seconds)
    return _summary(name, len(rows), seconds, candidates[0].name, {one.name for one in candidates if _is_single(one)})


def _is_single(candidate: Candidate) -> bool:
    return not isinstance(candidate, BundleCandidate)


def _summary(
    inputs: str, count: int, seconds: Mapping[tuple[str, int], Sequence[float]], measured: str, single: set[str]
) -> list[Throughput]:
    own = {size: times for (name, size), times in seconds.items() if name == measured}
    best = min(own, key=lambda size: spread_of(own[size]).p50)
    return [
        Throughput(
            inputs=inputs,
            count=count,
            candidate=name,
            batch_size=size,
            samples_per_s=_rates(count, times),
            times_faster=None if name == measured else ratio_of(own[best if name in single else size], times).times_faster,
        )
        for (name, size), times in seconds.items()
    ]


def _rates(count: int, seconds: Sequence[float]) -> Spread:
    """Return the median rate, and the rate that 95 % of the rounds reach."""
    spread = spread_of(seconds)
    return Spread(count / spread.p50, count / spread.p95)
