"""End-to-end latency of everyone on every input, in turns."""

import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from ..progress import Report, detail_of
from ..stages import FloatArray
from .contestants.process import WorkerProcess
from .contestants.protocol import Embed, Embedded
from .inputs import InputSet
from .rounds import PAUSE_S, rotated_rounds
from .statistics import Ratio, Spread, ratio_of, spread_of

# What is left of an end-to-end time beside the stages: arrays of the host, the final norm.
OTHER = "other"
# Everyone's turns on one input, in the order of the rounds.
Turns = Mapping[str, Sequence[Embedded]]


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from an input's files to its embedding, and of a bundle's stages.

    `cosine` is the embedding's with the baseline's, None without one. `against_baseline` tells how many times faster the
    contestant is than the baseline, None for that itself too.
    """

    input: str
    contestant: str
    ms: Spread
    stages_ms: dict[str, Spread]
    cosine: float | None
    against_baseline: Ratio | None


class LatencyRatio(msgspec.Struct, frozen=True):
    """The bundle is so many times faster than a contestant on an input: by medians, with a 95 % interval over rounds."""

    input: str
    contestant: str
    times_faster: float
    low: float
    high: float


def measure_turns(workers: Mapping[str, WorkerProcess], inputs: InputSet, runs: int, report: Report) -> dict[str, Turns]:
    """Return everyone's turns by input. The workers are warm."""
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
    """Summarise turns; `baseline` is whom everyone is compared with."""
    results = []
    for name, series in turns.items():
        compared = None if baseline is None else series[baseline]
        for contestant, embedded in series.items():
            cosine = None if compared is None else float(_vector(compared[0]) @ _vector(embedded[0]))
            ratio = None if compared is None or compared is embedded else _ratio(embedded, compared)
            seconds = spread_of([1e3 * one.seconds for one in embedded])
            results.append(Latency(name, contestant, seconds, _stage_spreads(embedded), cosine, ratio))
    return results


def latency_ratios(turns: Mapping[str, Turns], measured: str) -> list[LatencyRatio]:
    """Return how many times faster `measured` is than each of the others."""
    return [
        LatencyRatio(name, contestant, ratio.times_faster, ratio.low, ratio.high)
        for name, series in turns.items()
        for contestant in series
        if contestant != measured
        for ratio in [_ratio(series[measured], series[contestant])]
    ]


def _ratio(own: Sequence[Embedded], others: Sequence[Embedded]) -> Ratio:
    return ratio_of([one.seconds for one in own], [one.seconds for one in others])


def _stage_spreads(embedded: Sequence[Embedded]) -> dict[str, Spread]:
    if not embedded[0].stages:
        return {}
    stages = [{**one.stages, OTHER: one.seconds - sum(one.stages.values())} for one in embedded]
    return {stage: spread_of([1e3 * one[stage] for one in stages]) for stage in stages[0]}


def _vector(embedded: Embedded) -> FloatArray:
    """The embedding of a turn with one input, [hidden]."""
    return np.frombuffer(embedded.embeddings, np.float32)
