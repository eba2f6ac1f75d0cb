"""How many inputs a second everyone embeds, by batch size."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..progress import Report
from .messages import BundleContestant, Contestant, Embed, Embedded
from .process import PAUSE_S, WorkerProcess, rotated_rounds
from .statistics import Spread, ratio_of, spread_of


class Throughput(msgspec.Struct, frozen=True):
    """Samples per second over `count` inputs of a set. `times_faster` is the bundle's at this batch size; None for itself.

    PyTorch takes one input at a time: its `batch_size` is 1, and the bundle is set against it at its own best batch size.
    """

    inputs: str
    count: int
    contestant: str
    batch_size: int
    samples_per_s: Spread
    times_faster: float | None


def measure_throughput(
    workers: Mapping[str, WorkerProcess],
    contestants: Sequence[Contestant],
    batch_sizes: Sequence[int],
    inputs: tuple[str, Path, Sequence[int]],
    rounds: int,
    report: Report,
) -> list[Throughput]:
    """Measure every contestant at every batch size, all of them in one rotation. `inputs` is a name, a file and its rows."""
    name, file, rows = inputs
    report(f"throughput: {len(rows)} {name}")
    cells = [
        (contestant.name, size)
        for contestant in contestants
        for size in (batch_sizes if isinstance(contestant, BundleContestant) else (1,))
    ]
    seconds: dict[tuple[str, int], list[float]] = {cell: [] for cell in cells}
    for number, order in enumerate(rotated_rounds(cells, rounds + 1)):
        for contestant, size in order:
            time.sleep(PAUSE_S)
            embedded = workers[contestant].ask(Embed(str(file), list(rows), size), Embedded)
            if number > 0:  # the first round warms batches of this size up
                seconds[contestant, size].append(embedded.seconds)
    return _summary(name, len(rows), seconds, contestants[0].name, {one.name for one in contestants if _is_single(one)})


def _is_single(contestant: Contestant) -> bool:
    return not isinstance(contestant, BundleContestant)


def _summary(
    inputs: str, count: int, seconds: Mapping[tuple[str, int], Sequence[float]], measured: str, single: set[str]
) -> list[Throughput]:
    own = {size: times for (name, size), times in seconds.items() if name == measured}
    best = min(own, key=lambda size: spread_of(own[size]).p50)
    return [
        Throughput(
            inputs=inputs,
            count=count,
            contestant=name,
            batch_size=size,
            samples_per_s=_rates(count, times),
            times_faster=None if name == measured else ratio_of(own[best if name in single else size], times).times_faster,
        )
        for (name, size), times in seconds.items()
    ]


def _rates(count: int, seconds: Sequence[float]) -> Spread:
    """Median, and the rate that 95 % of the rounds reach."""
    spread = spread_of(seconds)
    return Spread(count / spread.p50, count / spread.p95)
