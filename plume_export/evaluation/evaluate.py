"""Evaluate one bundle, or compare two bundles, on a dataset."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from ..bundle import Bundle, Manifest, open_bundle
from ..embed_file import OnError
from ..inputs import MediaOptions, Notify
from ..machine.cores import check_threads
from ..progress import OpenProgress
from ..runtime.embedder import Embedder
from ..runtime.embedder_options import Mode, check_rollout
from ..runtime.onnx_reference import OnnxReference
from ..spec import ModelSpec
from .agreement import compare_rankings
from .dataset import RetrievalTask
from .metrics import check_evaluate_extra, measure_quality
from .quality_report import BundleQuality, EvaluationReport
from .ranking import TaskRanking, check_files, distinct_inputs, rank_tasks


@dataclass(frozen=True)
class EvaluationOptions:
    """Embedding options. If `is_rounded`, the evaluated bundle (not the compared one) runs in ONNX's reference evaluator.

    Raises OptionError for values that no bundle accepts.
    """

    mode: Mode = "gen"
    steps: int | None = None
    batch_size: int | None = None
    threads: int | None = None
    on_error: OnError = "fail"
    is_rounded: bool = False
    verify_hashes: bool = True
    exif_transpose: bool = False
    video_frames: int | None = None
    video_fps: float | None = None

    def __post_init__(self) -> None:
        check_threads(self.threads)
        check_rollout(self.mode, self.steps)
        _ = self.media  # checks the values

    @property
    def media(self) -> MediaOptions:
        """Options for reading images and videos."""
        return MediaOptions(self.exif_transpose, self.video_frames, self.video_fps)


def evaluate(
    bundle: Path,
    tasks: Sequence[RetrievalTask],
    options: EvaluationOptions,
    *,
    compare: Path | None,
    progress: OpenProgress,
    notify: Notify = lambda _: None,
) -> EvaluationReport:
    """Return the quality of `bundle` and, if given, its agreement with `compare`.

    `notify` receives the notices of the inputs once, not per bundle. Raises MissingExtraError, PlumeExportError for options out
    of range, BundleError if either bundle cannot be opened, and InputError for an input that cannot be embedded.
    """
    check_evaluate_extra()
    media = options.media
    if options.on_error == "fail":
        check_files(distinct_inputs(tasks))
    opened = open_bundle(bundle, verify_hashes=options.verify_hashes)
    other = None if compare is None else open_bundle(compare, verify_hashes=options.verify_hashes)
    if other is not None:
        _open(other, options, is_rounded=False).close()  # raise early if it cannot run, before the long work starts
    rankings, evaluated = _measure(opened, tasks, options, is_rounded=options.is_rounded, progress=progress, notify=notify)
    if other is None:
        return EvaluationReport(evaluated, media=media)
    before, compared = _measure(other, tasks, options, is_rounded=False, progress=progress, notify=lambda _: None)
    comparison = [compare_rankings(one, two) for one, two in zip(before, rankings, strict=True)]
    same = _same_checkpoint(opened.manifest, other.manifest)
    differences = model_differences(opened.manifest.model, other.manifest.model)
    return EvaluationReport(evaluated, compared, comparison, same, media, differences)


def _measure(
    bundle: Bundle,
    tasks: Sequence[RetrievalTask],
    options: EvaluationOptions,
    *,
    is_rounded: bool,
    progress: OpenProgress,
    notify: Notify,
) -> tuple[list[TaskRanking], BundleQuality]:
    sha256, manifest = bundle.sha256, bundle.manifest
    with _open(bundle, options, is_rounded=is_rounded) as embedder, progress(len(distinct_inputs(tasks)), "inputs") as advance:
        rankings = rank_tasks(
            embedder, tasks, batch_size=options.batch_size, on_error=options.on_error, advance=advance, notify=notify
        )
    return rankings, BundleQuality(
        bundle=str(bundle.path),
        sha256=sha256,
        checkpoint=str(manifest.checkpoint),
        backend="rounded after every operator" if is_rounded else manifest.backend,
        precision=manifest.precision,
        tasks=[measure_quality(ranking) for ranking in rankings],
    )


def _open(bundle: Bundle, options: EvaluationOptions, *, is_rounded: bool) -> Embedder:
    backend = OnnxReference(bundle) if is_rounded else None
    media = asdict(options.media)
    return Embedder(bundle, mode=options.mode, steps=options.steps, threads=options.threads, backend=backend, **media)


def _same_checkpoint(one: Manifest, other: Manifest) -> bool | None:
    first, second = ((origin.tensors_sha256, origin.config_sha256) for origin in (one.checkpoint, other.checkpoint))
    return None if None in first or None in second else first == second


def model_differences(one: ModelSpec, other: ModelSpec) -> list[str]:
    """Return the settings in which two models differ, by dotted name, such as "preprocess.max_pixels"."""
    first, second = msgspec.to_builtins(one), msgspec.to_builtins(other)
    return [
        f"{part}.{name}" for part, settings in first.items() for name, value in settings.items() if value != second[part][name]
    ]
