"""Latency of one bundle over prompt lengths and image sizes, with a fitted curve."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from ..errors import InputError
from ..inputs import sources_from_file
from ..progress import Report, detail_of
from .inputs import InputSize, Sizer, text_of_tokens, write_lines, write_picture
from .process import PAUSE_S, WorkerProcess
from .statistics import Spread, spread_of
from .worker_messages import Embed, Embedded

# The cost per unit, relative to the cheapest size, from which on a unit counts as expensive.
RISE = 1.25


class CostCurve(msgspec.Struct, frozen=True):
    """The fit milliseconds = fixed + linear * size + quadratic * size^2, with coefficients >= 0, minimising relative error.

    `cheapest_size` is the measured size with the lowest cost per unit. `rises_at` is the larger size at which a unit costs 25 %
    more; None if it is outside the measured sizes. `worst_error` is the largest relative error of the fit.
    """

    fixed_ms: float
    linear_ms: float
    quadratic_ms: float
    worst_error: float
    cheapest_size: float
    cheapest_ms_per_unit: float
    rises_at: float | None

    def milliseconds(self, size: float) -> float:
        return self.fixed_ms + self.linear_ms * size + self.quadratic_ms * size * size


def cost_curve(sizes: Sequence[float], milliseconds: Sequence[float]) -> CostCurve:
    """Fit a curve to at least three sizes in ascending order."""
    from scipy.optimize import nnls

    x, y = np.array(sizes, np.float64), np.array(milliseconds, np.float64)
    coefficients, _ = nnls(np.stack([np.ones_like(x), x, x * x], 1) / y[:, None], np.ones_like(y))
    fixed, linear, quadratic = (float(value) for value in coefficients)
    fitted = fixed + linear * x + quadratic * x * x
    cheapest = float(np.clip(np.sqrt(fixed / quadratic), x[0], x[-1])) if quadratic > 0 else float(x[-1])
    least = fixed / cheapest + linear + quadratic * cheapest
    # quadratic s^2 + (linear - RISE least) s + fixed = 0 has two solutions; the larger one is above the cheapest size.
    slope = RISE * least - linear
    root = (slope + np.sqrt(max(slope**2 - 4 * quadratic * fixed, 0))) / (2 * quadratic) if quadratic > 0 else np.inf
    return CostCurve(
        fixed_ms=fixed,
        linear_ms=linear,
        quadratic_ms=quadratic,
        worst_error=float(np.abs(fitted / y - 1).max()),
        cheapest_size=cheapest,
        cheapest_ms_per_unit=float(least),
        rises_at=float(root) if root <= x[-1] else None,
    )


_PROMPT_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096)
# Sides of the square images. Each has about twice the pixels of the one before. A visual token covers 28 x 28 pixels.
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
    """Latency of texts by prompt tokens, or of images by pixels. `curve` is None if there are too few sizes."""

    over: Literal["prompt tokens", "pixels"]
    points: list[SweepPoint]
    curve: CostCurve | None


def measure_sweeps(worker: WorkerProcess, sizer: Sizer, directory: Path, runs: int, report: Report) -> list[Sweep]:
    """Measure texts and, if the bundle accepts them, images, in every size that the bundle accepts."""
    texts = _write_texts(sizer, directory)
    sweeps = [_measure(worker, sizer, "prompt tokens", texts, runs, report)]
    pictures = _write_pictures(sizer, directory)
    if pictures is not None:
        sweeps.append(_measure(worker, sizer, "pixels", pictures, runs, report))
    return sweeps


def prompt_sizes(shortest: int, longest: int) -> list[int]:
    """Return the powers of two that are possible prompt lengths. The shortest prompt replaces those below it."""
    sizes = [max(size, shortest) for size in _PROMPT_TOKENS if size <= longest]
    return sorted(set(sizes))


def _write_texts(sizer: Sizer, directory: Path) -> Path:
    sizes = prompt_sizes(sizer.shortest_prompt, sizer.longest_prompt)
    lines = [{"id": str(size), "text": text_of_tokens(size, sizer.prompt_tokens)} for size in sizes]
    return write_lines(directory / "sweep-texts.jsonl", lines)


def _write_pictures(sizer: Sizer, directory: Path) -> Path | None:
    """Write images without text; return None if the bundle accepts no images, or only images of one size."""
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
            break  # the bundle does not accept this size, nor the larger ones that follow
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
