"""Evaluate one bundle, or two against each other, on a dataset."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ..bundle import Bundle, open_bundle
from ..embed_file import OnError
from ..runtime.embedder import Embedder, Mode
from ..runtime.onnx_reference import OnnxReference
from .compare import compare_rankings
from .dataset import RetrievalTask
from .metrics import check_evaluate_extra, measure_quality
from .ranking import TaskRanking, distinct_inputs, rank_tasks
from .report import BundleQuality, EvaluationReport

# Opens a progress bar of so many inputs; what it yields advances the bar.
Progress = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class EvaluationOptions:
    """How to embed. `is_rounded` runs the evaluated bundle, not the compared one, in onnx's reference evaluator."""

    mode: Mode = "gen"
    steps: int | None = None
    batch_size: int = 8
    threads: int | None = None
    on_error: OnError = "fail"
    is_rounded: bool = False


def evaluate(
    bundle: Path, tasks: Sequence[RetrievalTask], options: EvaluationOptions, *, compare: Path | None, progress: Progress
) -> EvaluationReport:
    """Return the quality of `bundle`, and against `compare` where given.

    Raises MissingExtraError, BundleError for either bundle, InputError for an input that can not be embedded.
    """
    check_evaluate_extra()
    opened = open_bundle(bundle)
    other = None if compare is None else open_bundle(compare)
    rankings = _rank(opened, tasks, options, is_rounded=options.is_rounded, progress=progress)
    evaluated = _quality(opened, rankings, options.is_rounded)
    if other is None:
        return EvaluationReport(evaluated)
    before = _rank(other, tasks, options, is_rounded=False, progress=progress)
    comparison = [compare_rankings(one, two) for one, two in zip(before, rankings, strict=True)]
    return EvaluationReport(evaluated, _quality(other, before, False), comparison)


def _rank(
    bundle: Bundle, tasks: Sequence[RetrievalTask], options: EvaluationOptions, *, is_rounded: bool, progress: Progress
) -> list[TaskRanking]:
    backend = OnnxReference(bundle) if is_rounded else None
    embedder = Embedder(bundle, mode=options.mode, steps=options.steps, threads=options.threads, backend=backend)
    with embedder, progress(len(distinct_inputs(tasks)), "inputs") as advance:
        return rank_tasks(embedder, tasks, batch_size=options.batch_size, on_error=options.on_error, advance=advance)


def _quality(bundle: Bundle, rankings: Sequence[TaskRanking], is_rounded: bool) -> BundleQuality:
    manifest = bundle.manifest
    return BundleQuality(
        bundle=str(bundle.path),
        sha256=bundle.sha256,
        backend="rounded after every operator" if is_rounded else manifest.backend,
        precision=manifest.precision,
        tasks=[measure_quality(ranking) for ranking in rankings],
    )
