"""Checkpoint to runnable bundle: export, compile for the target, self-test. Imports torch only when it exports."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from .builders.onnxruntime.onnxruntime_bundle import (
    check_onnxruntime_precision,
    compile_for_onnxruntime,
    compile_for_onnxruntime_cuda,
)
from .builders.tensorrt.tensorrt_bundle import BuildProgress, compile_for_tensorrt
from .bundle import Bundle, Modalities, check_output, graphs_of, open_written, staged_bundle
from .errors import BundleError, MissingExtraError, OptionError
from .machine.gpu import device_memory, find_gpus, system_memory
from .machine.onnxruntime_module import import_onnxruntime
from .machine.tensorrt_variant import import_variant
from .memory_plan import check_builder_fits, check_plan_fits
from .progress import Report, detail_of
from .quantise.options import QuantiseOptions, check_quantise_options
from .recipe import Device, Recipe, Target
from .samples import sample_inputs_file
from .spec import INTEGER_PRECISIONS, PRECISIONS, GraphName, ModelSpec, Precision, RouterContext

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .quantise.activation_ranges import Ranges

_EXPORT_PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub", "onnx", "onnx_ir", "onnxscript")


@dataclass(frozen=True)
class ModelOptions:
    """Settings that cannot be derived from a checkpoint's tensors. None: as recorded in the checkpoint, else as published."""

    latent_steps: int | None = None
    top_k: int = 2
    router_context: RouterContext = "disc"
    prefix: str | None = None
    suffix: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export. With `selftest_inputs=None` the bundle has no self-test. `quantise` is for integer precisions.

    With `guards_range`, layers whose values come near the maximum of float16 stay in float32. Raises PlumeExportError for
    options that cannot be combined.
    """

    precision: Precision = "fp16"
    modalities: Modalities = "all"
    selftest_inputs: Path | None = field(default_factory=sample_inputs_file)
    quantise: QuantiseOptions = field(default_factory=QuantiseOptions)
    guards_range: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("precision", PRECISIONS), ("modalities", get_args(Modalities))):
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}.", fix=f"--{name} {allowed[0]}"
                )
        check_quantise_options(self.precision, graphs_of(self.modalities), self.quantise)


def check_checkpoint_name(name: str) -> None:
    """Raise OptionError for an empty name, which would be read as the path of the current directory."""
    if not name.strip():
        raise OptionError("The name of the checkpoint is empty.", fix="pass a directory or a hub id to --checkpoint")


def open_checkpoint(name: str, options: ModelOptions, *, revision: str | None = None, offline: bool = False) -> "Checkpoint":
    """Find a checkpoint (a directory or a hub id), read its dimensions and check every tensor's name and shape.

    `revision` is a branch, tag or commit of the hub's repository; None: its main branch.

    Raises CheckpointError if anything is missing, corrupt or not PLUME's, and PlumeExportError for options that the checkpoint
    does not allow.
    """
    check_checkpoint_name(name)
    require_export_packages()
    from .checkpoint import (
        Checkpoint,
        ExaminedTensors,
        check_forced_texts,
        check_tensors,
        model_spec_from_checkpoint,
        resolve_checkpoint,
        tokenizer_json_from_checkpoint,
    )

    directory = resolve_checkpoint(name, revision=revision, offline=offline)
    tensors = ExaminedTensors(directory)
    model = model_spec_from_checkpoint(directory, tensors, **vars(options))
    check_tensors(tensors, model)
    check_forced_texts(tokenizer_json_from_checkpoint(directory, model.decoder.vocab), model)
    return Checkpoint(directory, name, tensors, model)


def export_checkpoint(checkpoint: "Checkpoint", output: Path, options: ExportOptions, report: Report) -> Bundle:
    """Write the portable ONNX bundle, verify it and return it.

    Raises PlumeExportError, before any work, if the output must not be replaced or cannot be written.
    """
    from .portable_bundle import draft_bundle
    from .quantised_export import checked_schemes, first_plan, write_quantised
    from .reference import ReferenceProcessor

    check_output(output, _inputs(checkpoint, options))
    ReferenceProcessor(checkpoint.directory, checkpoint.model)  # raises for a tokenizer that transformers cannot use
    with staged_bundle(output, report) as staged:
        schemes = {}
        if options.precision in INTEGER_PRECISIONS:
            schemes = checked_schemes(checkpoint.model, options.precision, options.modalities, options.quantise)
        ranges = _ranges(checkpoint, options, report)
        float32_layers = {} if ranges is None or not options.guards_range else _overflowing_layers(ranges, report)
        plan = None
        if schemes and ranges is not None:
            plan = first_plan(checkpoint, schemes, ranges, (*options.quantise.excluded, *float32_layers), report)
        with draft_bundle(
            checkpoint,
            staged,
            precision=options.precision,
            modalities=options.modalities,
            selftest_inputs=options.selftest_inputs,
            float32_layers=float32_layers,
            report=report,
        ) as draft:
            if plan is None or ranges is None:
                report("writing weights")
                draft.write_graphs()
            else:
                draft.quantisation = write_quantised(draft, plan, ranges, options.quantise, report)
        exported = open_written(staged)
    return replace(exported, path=output)


def _inputs(checkpoint: "Checkpoint", options: ExportOptions) -> list[Path]:
    """Return the paths that an export reads, and that its output must not replace."""
    ranges = options.quantise.ranges_file
    return [checkpoint.directory, *([] if ranges is None else [ranges])]


def _ranges(checkpoint: "Checkpoint", options: ExportOptions, report: Report) -> "Ranges | None":
    """Return activation ranges if quantisation or the float16 overflow check needs them, else None."""
    from .quantise.calibrate import ranges_of

    if options.precision in INTEGER_PRECISIONS or (options.guards_range and options.precision == "fp16"):
        return ranges_of(checkpoint, options.quantise.ranges_file, report)
    return None


def _overflowing_layers(ranges: "Ranges", report: Report) -> dict[str, float]:
    """Return the layers whose values may overflow float16, with their largest magnitudes."""
    from .quantise.overflow_guard import guard_text, guarded_layers

    layers = guarded_layers(ranges)
    (report if layers else detail_of(report))(guard_text(layers, ranges))
    return layers


def build_bundle(
    checkpoint: "Checkpoint",
    output: Path,
    options: ExportOptions,
    *,
    target: Target,
    report: Report,
    progress: BuildProgress = lambda *_: None,
) -> Bundle:
    """Export and compile for `target` in one call. Only the compiled bundle is kept.

    Requires a target that passed `check_target`. Raises the errors of `export_checkpoint` and `compile_bundle`.
    """
    _check_memory(target, checkpoint.model, options.precision, graphs_of(options.modalities))
    check_output(output, _inputs(checkpoint, options))
    with staged_bundle(output, report) as staged, tempfile.TemporaryDirectory(dir=staged.parent) as scratch:
        exported = export_checkpoint(checkpoint, Path(scratch) / "onnx", options, report)
        report(f"compiling for {target.name}")
        compiled = _compile(exported, staged, target, is_source_kept=False, progress=progress)
    return replace(compiled, path=output)


def compile_bundle(
    source: Bundle,
    output: Path,
    target: Target,
    *,
    progress: BuildProgress = lambda *_: None,
    report: Report = lambda _: None,
) -> Bundle:
    """Compile a portable bundle for a target that ships, or for a recipe file. Needs no torch. Raises PlumeExportError."""
    _check_compilable(source)
    check_output(output, [source.path])
    _check_memory(target, source.manifest.model, source.manifest.precision, list(source.manifest.graphs))
    return _compile(source, output, target, progress=progress, report=report)


def _compile(
    source: Bundle,
    output: Path,
    target: Target,
    *,
    is_source_kept: bool = True,
    progress: BuildProgress = lambda *_: None,
    report: Report = lambda _: None,
) -> Bundle:
    """Compile for the target's backend. With `is_source_kept=False`, files that do not change are moved out of the source."""
    name, recipe = target
    if recipe.backend == "onnxruntime-cpu":
        return compile_for_onnxruntime(source, output, target=name, recipe=recipe, is_source_kept=is_source_kept, report=report)
    if recipe.backend == "onnxruntime-cuda":
        return compile_for_onnxruntime_cuda(source, output, name, recipe, is_source_kept=is_source_kept, report=report)
    return compile_for_tensorrt(source, output, name, recipe, is_source_kept=is_source_kept, progress=progress, report=report)


def check_target(recipe: Recipe, precision: Precision) -> None:
    """Raise, before anything is built, if the target cannot run the precision or its builder is not installed."""
    if recipe.backend == "tensorrt" or recipe.backend == "tensorrt-rtx":
        import_variant(recipe.backend)
    else:
        check_onnxruntime_precision(recipe.backend, precision)
    if recipe.backend == "onnxruntime-cpu":
        import_onnxruntime()


def _check_compilable(source: Bundle) -> None:
    quantisation = source.manifest.quantisation
    if quantisation is not None and quantisation.quantizer != "own":
        raise BundleError(
            f"{source.path} was quantised by {quantisation.quantizer}. Such bundles are for comparison and cannot be compiled.",
            fix="run it as it is, or export the checkpoint with --precision int8 and compile that",
        )


def _check_memory(target: Target, model: ModelSpec, precision: Precision, graphs: Collection[GraphName]) -> None:
    """Raise if the engines do not fit in the device's memory, or the builder of TensorRT-RTX not in this machine's.

    For TensorRT, the device is this machine's GPU. Otherwise it is the one in the recipe. The memory of TensorRT's builder is
    not known.
    """
    name, recipe = target
    device = recipe.device
    if recipe.backend == "tensorrt" and (memory := device_memory()) is not None:
        gpu = find_gpus()[0]
        device = Device(gpu.name, memory.total_bytes / 1e9, gpu.compute_capability)
    if recipe.backend in ("tensorrt", "tensorrt-rtx") and device is not None:
        check_plan_fits(name, recipe, model, precision, device, graphs)
    if recipe.backend == "tensorrt-rtx":
        check_builder_fits(name, recipe, model, precision, graphs, system_memory().free_bytes)


def obstacle_to_running(bundle: Bundle) -> str | None:
    """Return the reason why a bundle that was built here cannot run here, or None if the driver reports none."""
    backend = bundle.manifest.backend
    if backend in ("onnx", "onnxruntime"):
        return None
    gpus = find_gpus()
    if not gpus:
        return "there is no NVIDIA GPU here"
    if backend == "tensorrt-rtx" and not gpus[0].is_listed_for_rtx:
        return f"TensorRT-RTX does not list compute capability {gpus[0].compute_capability} of {gpus[0].name}"
    return None


def default_output(checkpoint_name: str, precision: Precision, target: str) -> Path:
    """Return bundles/NAME-PRECISION-TARGET under the current directory."""
    name = Path(checkpoint_name).name
    if name in ("", ".."):
        name = Path(checkpoint_name).resolve().name
    return Path("bundles") / f"{name}-{precision}-{Path(target).stem}"


def require_export_packages() -> None:
    """Raise MissingExtraError for the first package of the extra `export` that is not installed."""
    for package in _EXPORT_PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package, "export")
