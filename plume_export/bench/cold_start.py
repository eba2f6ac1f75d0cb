"""From the start of a process to the first embedding, and the memory of a process that embeds one text."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..progress import Report
from .contestants.contestant import Contestant
from .contestants.process import WorkerProcess
from .contestants.protocol import AskMemory, Done, Embed, Embedded, Load, Memory
from .rounds import rotated_rounds
from .statistics import Spread, spread_of


class ColdStart(msgspec.Struct, frozen=True):
    """Seconds from the start of a process to its first embedding, of a text: imports, loading and checking files included.

    `resident_bytes` and `peak_bytes` are the median process's memory behind that. The files were read before.
    """

    contestant: str
    processes: int
    seconds: Spread
    resident_bytes: int
    peak_bytes: int


def measure_cold_starts(contestants: Sequence[Contestant], text: Path, processes: int, report: Report) -> list[ColdStart]:
    """Start fresh processes in turns, after one that brings each contestant's files into memory. `text` is a file of inputs."""
    report("cold start")
    seconds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    memory: dict[str, list[Memory]] = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        _start(contestant, text)
    for order in rotated_rounds(contestants, processes):
        for contestant in order:
            taken, held = _start(contestant, text)
            seconds[contestant.name].append(taken)
            memory[contestant.name].append(held)
    return [
        ColdStart(
            contestant=name,
            processes=processes,
            seconds=spread_of(seconds[name]),
            resident_bytes=sorted(one.resident for one in held)[processes // 2],
            peak_bytes=sorted(one.peak for one in held)[processes // 2],
        )
        for name, held in memory.items()
    ]


def _start(contestant: Contestant, text: Path) -> tuple[float, Memory]:
    start = time.perf_counter()
    with WorkerProcess(contestant.name) as worker:
        worker.ask(Load(contestant), Done)
        worker.ask(Embed(str(text), [0], 1), Embedded)
        seconds = time.perf_counter() - start
        return seconds, worker.ask(AskMemory(), Memory)
