"""End-to-end latency of every candidate on every input, the parts of a rollout, and cold starts."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..progress import Report, detail_of
from ..stages import FloatArray
from .inputs import InputSet
from .process import PAUSE_S, WorkerProcess, rotated_rounds
from .statistics import Ratio, Spread, ratio_of, spread_of
from .worker_messages import AskMemory, Candidate, Done, Embed, Embedded, Load, Memory, RolloutTime

# Name of the time outside the stages: preparing host arrays, and normalising the embedding.
OTHER = "other"
# The runs of every candidate on one input, in the order of the rounds.
Turns = Mapping[str, Sequence[Embedded]]


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from an input's files to its embedding, and of a bundle's stages.

    `cosine` is the similarity to the baseline's embedding, or None without a baseline. `against_baseline` says how many times
    faster the candidate is than the baseline; it is None for the baseline itself and without a baseline.
    """

    input: str
    candidate: str
    ms: Spread
    stages_ms: dict[str, Spread]
    cosine: float | None
    against_baseline: Ratio | None


class LatencyRatio(msgspec.Struct, frozen=True):
    """How many times faster the bundle is than a candidate on an input: ratio of medians, with a 95 % interval over rounds."""

    input: str
    candidate: str
    times_faster: float
    low: float
    high: float


def measure_turns(workers: Mapping[str, WorkerProcess], inputs: InputSet, runs: int, report: Report) -> dict[str, Turns]:
    """Run all candidates in turns. Return their runs by input. The workers must be warm."""
    report("latency")
    turns: dict[str, Turns] = {}
    for row, size in zip(inputs.rows, inputs.sizes, strict=True):
        detail_of(report)(size.name)
        request = Embed(str(inputs.file), [row], 1)
        series: dict[str, list[Embedded]] = {name: [] for name in workers}
        for order in rotated_rounds(list(workers), runs):
            for name in order:
                time.sleep(PAUSE_S)
                series[name].append(workers[name].ask(request, Embedded))
        turns[size.name] = series
    return turns


def latencies(turns: Mapping[str, Turns], baseline: str | None) -> list[Latency]:
    """Summarise runs. Ratios are relative to `baseline`."""
    results = []
    for name, series in turns.items():
        compared = None if baseline is None else series[baseline]
        for candidate, embedded in series.items():
            cosine = None if compared is None else float(_vector(compared[0]) @ _vector(embedded[0]))
            ratio = None if compared is None or compared is embedded else _ratio(embedded, compared)
            seconds = spread_of([1e3 * one.seconds for one in embedded])
            results.append(Latency(name, candidate, seconds, _stage_spreads(embedded), cosine, ratio))
    return results


def latency_ratios(turns: Mapping[str, Turns], measured: str) -> list[LatencyRatio]:
    """Return how many times faster `measured` is than each of the other candidates."""
    return [
        LatencyRatio(name, candidate, ratio.times_faster, ratio.low, ratio.high)
        for name, series in turns.items()
        for candidate in series
        if candidate != measured
        for ratio in [_ratio(series[measured], series[candidate])]
    ]


def _ratio(own: Sequence[Embedded], others: Sequence[Embedded]) -> Ratio:
    return ratio_of([one.seconds for one in own], [one.seconds for one in others])


def _stage_spreads(embedded: Sequence[Embedded]) -> dict[str, Spread]:
    if not embedded[0].stages:
        return {}
    stages = [{**one.stages, OTHER: one.seconds - sum(one.stages.values())} for one in embedded]
    return {stage: spread_of([1e3 * one[stage] for one in stages]) for stage in stages[0]}


def _vector(embedded: Embedded) -> FloatArray:
    """Return the embedding of a run with one input, [hidden]."""
    return np.frombuffer(embedded.embeddings, np.float32)


class RolloutParts(msgspec.Struct, frozen=True):
    """Milliseconds of one input's rollout, measured in a separate pass that waits after every call.

    `step_ms` is one run of graph `latent_step`; the last run, with the suffix, is the readout. `copies_ms` are all copies of a
    rollout. `loop_ms_per_step` is the remaining time per step, outside of runs and copies.
    """

    input: str
    steps: int
    total_ms: Spread
    step_ms: Spread
    readout_ms: Spread
    copies_ms: Spread
    loop_ms_per_step: Spread


def rollout_parts(name: str, rollouts: Sequence[RolloutTime]) -> RolloutParts:
    """Summarise several rollouts of one input. A rollout of one step has only its readout."""
    steps = len(rollouts[0].runs)
    plain = [1e3 * run for one in rollouts for run in one.runs[:-1]] or [0.0]
    loop = [1e3 * (one.total - sum(one.runs) - one.copies) / steps for one in rollouts]
    return RolloutParts(
        input=name,
        steps=steps,
        total_ms=spread_of([1e3 * one.total for one in rollouts]),
        step_ms=spread_of(plain),
        readout_ms=spread_of([1e3 * one.runs[-1] for one in rollouts]),
        copies_ms=spread_of([1e3 * one.copies for one in rollouts]),
        loop_ms_per_step=spread_of(loop),
    )


class ColdStart(msgspec.Struct, frozen=True):
    """Seconds from the start of a process to its first embedding, of a text. Includes imports, loading and checking files.

    `resident_bytes` and `peak_bytes` are the median process's memory after the first embedding. The files were in the page
    cache.
    """

    candidate: str
    processes: int
    seconds: Spread
    resident_bytes: int
    peak_bytes: int


def measure_cold_starts(candidates: Sequence[Candidate], text: Path, processes: int, report: Report) -> list[ColdStart]:
    """Measure cold starts of new processes, interleaved. `text` is the path of a file of inputs.

    One process per candidate runs first and is not counted. It brings the files into the page cache.
    """
    report("cold start")
    seconds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    memory: dict[str, list[Memory]] = {candidate.name: [] for candidate in candidates}
    for candidate in candidates:
        _start(candidate, text)
    for order in rotated_rounds(candidates, processes):
        for candidate in order:
            taken, held = _start(candidate, text)
            seconds[candidate.name].append(taken)
            memory[candidate.name].append(held)
    return [
        ColdStart(
            candidate=name,
            processes=processes,
            seconds=spread_of(seconds[name]),
            resident_bytes=sorted(one.resident for one in held)[processes // 2],
            peak_bytes=sorted(one.peak for one in held)[processes // 2],
        )
        for name, held in memory.items()
    ]


def _start(candidate: Candidate, text: Path) -> tuple[float, Memory]:
    start = time.perf_counter()
    with WorkerProcess(candidate.name) as worker:
        worker.ask(Load(candidate), Done)
        worker.ask(Embed(str(text), [0], 1), Embedded)
        seconds = time.perf_counter() - start
        return seconds, worker.ask(AskMemory(), Memory)
