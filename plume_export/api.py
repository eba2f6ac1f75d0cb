"""The commands that write bundles as functions: `export`, `compile` and `build`, with the command line's defaults."""

import os
from dataclasses import replace
from pathlib import Path

from .builders.tensorrt.tensorrt_bundle import BuildProgress
from .bundle import Bundle, Modalities, Verify, check_output, graphs_of, open_bundle
from .machine.target import AUTO, target_of_this_machine
from .pipeline import (
    ExportOptions,
    ModelOptions,
    build_bundle,
    check_checkpoint_name,
    check_target,
    compile_bundle,
    default_output,
    export_checkpoint,
    open_checkpoint,
)
from .progress import Report
from .quantise.options import QuantiseOptions, precisions_from_text
from .recipe import Target, read_target
from .samples import sample_inputs_file

_Path = str | os.PathLike[str]


def export(
    checkpoint: _Path,
    output: _Path | None = None,
    *,
    precision: str = "fp16",
    modalities: Modalities = "all",
    model: ModelOptions | None = None,
    quantise: QuantiseOptions | None = None,
    range_guard: bool = True,
    selftest: bool = True,
    revision: str | None = None,
    offline: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Write the portable ONNX bundle of a checkpoint. Needs the extra `export` (torch).

    Args:
        checkpoint: A directory, a Hugging Face hub id, or "plume-tiny", the built-in sample.
        output: The bundle's directory. None: bundles/NAME-PRECISION-onnx under the current directory.
        precision: "fp32", "fp16", "bf16", "int8", "int8-weight" or "int4-weight"; or one per graph, such as
            "vision_encoder=int8,prefill=int8,latent_step=int8-weight".
        modalities: "text" leaves out the vision encoder.
        model: Model settings that cannot be derived from the checkpoint's tensors. None: the defaults of ModelOptions.
        quantise: Options for quantised precisions. None: the defaults of QuantiseOptions.
        range_guard: Whether to check for layers that overflow float16. Such layers stay in float32.
        selftest: Whether to save reference outputs in the bundle for `plume-export selftest`.
        revision: Branch, tag or commit of a hub id. None: the main branch.
        offline: Whether to use only the local Hugging Face cache.
        report: Called with one line per step.

    Raises:
        CheckpointError: The checkpoint is missing, corrupt or not PLUME's.
        MissingExtraError: A package of the extra `export` is not installed.
        PlumeExportError: The options cannot be combined, or the output cannot be written. Existing output is left unchanged.
    """
    options = _options(precision, modalities, quantise, range_guard, selftest)
    path = _checked_output(checkpoint, output, options, "onnx")
    opened = open_checkpoint(os.fspath(checkpoint), model or ModelOptions(), revision=revision, offline=offline)
    return export_checkpoint(opened, path, options, report)


def compile(
    bundle: _Path | Bundle,
    output: _Path,
    *,
    target: str = "auto",
    verify_hashes: Verify = True,
    report: Report = lambda _: None,
    progress: BuildProgress = lambda *_: None,
) -> Bundle:
    """Compile a portable bundle. Does not need torch.

    Args:
        bundle: The directory that `export` wrote.
        output: The compiled bundle's directory.
        target: A target from `plume-export targets`, or the path of a recipe. "auto": the target that matches this machine.
        verify_hashes: False checks file names and sizes only. "always" hashes the files even if the bundle was verified before.
        report: Called with one line per step.
        progress: Called with a graph's name and the current step of the engine builder.

    Raises:
        BundleError: The bundle is missing, corrupt or already compiled.
        PlumeExportError: The target does not exist, cannot run the bundle's precision or does not fit in its device's memory,
            or the output cannot be written. Existing output is left unchanged.
    """
    chosen = _chosen(target)
    path = Path(output)
    check_output(path, [bundle.path if isinstance(bundle, Bundle) else Path(bundle)])
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, verify_hashes=verify_hashes)
    report(f"compiling for {chosen.name}")
    return compile_bundle(opened, path, chosen, report=report, progress=progress)


def build(
    checkpoint: _Path,
    output: _Path | None = None,
    *,
    target: str = "auto",
    precision: str | None = None,
    modalities: Modalities = "all",
    model: ModelOptions | None = None,
    quantise: QuantiseOptions | None = None,
    range_guard: bool = True,
    selftest: bool = True,
    revision: str | None = None,
    offline: bool = False,
    report: Report = lambda _: None,
    progress: BuildProgress = lambda *_: None,
) -> Bundle:
    """Export and compile in one call. Only the compiled bundle is kept. Needs the extra `export` (torch).

    The arguments are those of `export` and `compile`. If `precision` is None, the target's own is used. If `output` is None,
    the bundle is written to bundles/NAME-PRECISION-TARGET under the current directory.

    Raises the errors of `export` and `compile`.
    """
    chosen = _chosen(target)
    recipe = chosen.recipe
    options = _options(recipe.precision if precision is None else precision, modalities, quantise, range_guard, selftest)
    check_target(recipe, options.precision)
    path = _checked_output(checkpoint, output, options, chosen.name)
    opened = open_checkpoint(os.fspath(checkpoint), model or ModelOptions(), revision=revision, offline=offline)
    return build_bundle(opened, path, options, target=chosen, report=report, progress=progress)


def _options(
    precision: str, modalities: Modalities, quantise: QuantiseOptions | None, range_guard: bool, selftest: bool
) -> ExportOptions:
    precisions = precisions_from_text(precision, graphs_of(modalities))
    return ExportOptions(
        precisions.name,
        modalities,
        sample_inputs_file() if selftest else None,
        replace(quantise or QuantiseOptions(), schemes=precisions.schemes),
        guards_range=range_guard,
    )


def _checked_output(checkpoint: _Path, output: _Path | None, options: ExportOptions, target: str) -> Path:
    """Return the output path. Raises before the checkpoint is read or downloaded."""
    check_checkpoint_name(os.fspath(checkpoint))
    path = default_output(os.fspath(checkpoint), options.precision, target) if output is None else Path(output)
    ranges = options.quantise.ranges_file
    check_output(path, [Path(checkpoint), *([] if ranges is None else [ranges])])
    return path


def _chosen(target: str) -> Target:
    """Return the target with its recipe, which is read and checked here and nowhere else."""
    return read_target(target_of_this_machine().name if target == AUTO else target)
