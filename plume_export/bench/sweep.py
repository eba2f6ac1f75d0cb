"""One bundle's latency over lengths of prompts and sizes of images."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ..embed_file import sources_from_file
from ..errors import InputError
from ..progress import Report, detail_of
from .contestants.process import WorkerProcess
from .contestants.protocol import Embed, Embedded
from .cost_curve import CostCurve, cost_curve
from .drawn_inputs import text_of_tokens, write_lines, write_picture
from .inputs import InputSize, Sizer
from .rounds import PAUSE_S
from .statistics import Spread, spread_of

_PROMPT_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096)
# Each has about twice as many pixels as the one before; multiples of 28, which is a visual token's side.
_IMAGE_SIDES = (112, 168, 224, 308, 448, 644, 896, 1344)
_FEWEST_FOR_A_CURVE = 4


class SweepPoint(msgspec.Struct, frozen=True):
    """One size and its latency in milliseconds."""

    size: int
    prompt_tokens: int
    visual_tokens: int
    ms: Spread
    stages_ms: dict[str, Spread]


class Sweep(msgspec.Struct, frozen=True):
    """Latency over prompt tokens of texts, or over pixels of one image. `curve` None: too few sizes for one."""

    over: Literal["prompt tokens", "pixels"]
    points: list[SweepPoint]
    curve: CostCurve | None


def measure_sweeps(worker: WorkerProcess, sizer: Sizer, directory: Path, runs: int, report: Report) -> list[Sweep]:
    """Measure texts, and images where the bundle takes them, in every size that it serves."""
    texts = _write_texts(sizer, directory)
    sweeps = [_measure(worker, sizer, "prompt tokens", texts, runs, report)]
    pictures = _write_pictures(sizer, directory)
    if pictures is not None:
        sweeps.append(_measure(worker, sizer, "pixels", pictures, runs, report))
    return sweeps


def prompt_sizes(shortest: int, longest: int) -> list[int]:
    """Return the powers of two that a prompt can have; the shortest prompt stands for those below it."""
    sizes = [max(size, shortest) for size in _PROMPT_TOKENS if size <= longest]
    return sorted(set(sizes))


def _write_texts(sizer: Sizer, directory: Path) -> Path:
    sizes = prompt_sizes(sizer.shortest_prompt, sizer.longest_prompt)
    lines = [{"id": str(size), "text": text_of_tokens(size, sizer.prompt_tokens)} for size in sizes]
    return write_lines(directory / "sweep-texts.jsonl", lines)


def _write_pictures(sizer: Sizer, directory: Path) -> Path | None:
    """Pictures alone; None where the bundle takes no image, or only images of one size."""
    manifest = sizer.bundle.manifest
    most = manifest.model.preprocess.max_pixels
    sides = [side for side in _IMAGE_SIDES if side * side <= most]
    if manifest.modalities == "text" or len(sides) < 2:
        return None
    lines = [{"id": str(side * side), "image": write_picture(directory, side, seed=0)} for side in sides]
    return write_lines(directory / "sweep-pictures.jsonl", lines)


def _measure(
    worker: WorkerProcess,
    sizer: Sizer,
    over: Literal["prompt tokens", "pixels"],
    file: Path,
    runs: int,
    report: Report,
) -> Sweep:
    report(f"sweep over {over}")
    points = []
    for row, source in enumerate(sources_from_file(file)):
        try:
            size = sizer.size(source.id, source.read())
        except InputError:
            break  # longer than the bundle serves, as all that follow
        detail_of(report)(f"{source.id} {over}")
        points.append(_point(size, _turns(worker, file, row, runs)))
    curve = None
    if len(points) >= _FEWEST_FOR_A_CURVE:
        curve = cost_curve([point.size for point in points], [point.ms.p50 for point in points])
    return Sweep(over, points, curve)


def _turns(worker: WorkerProcess, file: Path, row: int, runs: int) -> list[Embedded]:
    request = Embed(str(file), [row], 1)
    worker.ask(request, Embedded)  # warm-up
    turns = []
    for _ in range(runs):
        time.sleep(PAUSE_S)
        turns.append(worker.ask(request, Embedded))
    return turns


def _point(size: InputSize, turns: Sequence[Embedded]) -> SweepPoint:
    stages = {stage: spread_of([1e3 * turn.stages[stage] for turn in turns]) for stage in turns[0].stages}
    return SweepPoint(
        size=int(size.name) if size.vision else size.prompt_tokens,
        prompt_tokens=size.prompt_tokens,
        visual_tokens=size.visual_tokens,
        ms=spread_of([1e3 * turn.seconds for turn in turns]),
        stages_ms=stages,
    )
