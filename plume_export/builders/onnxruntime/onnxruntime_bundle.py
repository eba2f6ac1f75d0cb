"""Compile a portable bundle for ONNX Runtime's CPU or CUDA provider: fused attention, norms and rotary embeddings.

For the CPU, prefill gets a cache of the start of prompts. An int8 bundle gets graphs with dynamically quantised matmuls;
everything else is float32.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from ...bundle import (
    Bundle,
    Manifest,
    copy_file,
    move_file,
    new_bundle,
    open_bundle,
    open_written,
    read_constants,
    write_manifest,
)
from ...errors import BundleError, MissingExtraError, OptionError
from ...machine.cores import has_exact_int8_sums
from ...progress import Report
from ...recipe import Recipe, RecipeBackend, check_recipe_fits_model, model_scaled_to
from ...spec import INTEGER_PRECISIONS, GraphName, GraphSpec, Precision, TensorSpec

_WIDENS_WEIGHTS = "CPU provider has no float16 kernels and would convert whole weights to float32 in every run"
_CPU_INTEGERS = "choose --precision int8 for a CPU; quantised weights with 16-bit activations are for GPU targets"
_NO_CUDA_INTEGERS = "CUDA provider would convert quantised weights in every run"
_CUDA_INTEGERS = (
    "choose --precision fp16 or bf16 for cuda; quantised precisions are for TensorRT, TensorRT-RTX and, as int8, for a CPU"
)
# Graphs with the same weights, and precisions in which the CPU provider reads weights as they are stored.
_SHARED_WEIGHTS: tuple[GraphName, ...] = ("prefill", "latent_step")
_PREPACKED: tuple[Precision, ...] = ("fp32", "int8")
# Precisions without kernels in a provider, the reason, and the alternative. Source: docs/OperatorKernels.md of onnxruntime.
_REFUSED: dict[tuple[RecipeBackend, Precision], tuple[str, str]] = {
    ("onnxruntime-cpu", "bf16"): (
        "CPU provider has no bfloat16 kernels",
        "choose --precision fp32, fp16 or int8 for a CPU; bf16 is for GPU targets",
    ),
    ("onnxruntime-cpu", "int8-weight"): (_WIDENS_WEIGHTS, _CPU_INTEGERS),
    ("onnxruntime-cpu", "int4-weight"): (_WIDENS_WEIGHTS, _CPU_INTEGERS),
    ("onnxruntime-cuda", "fp32"): (
        "CUDA provider has no float32 kernel for GroupQueryAttention",
        "choose --precision fp16 or bf16 for a GPU; fp32 is for the target cpu",
    ),
    **{("onnxruntime-cuda", precision): (_NO_CUDA_INTEGERS, _CUDA_INTEGERS) for precision in INTEGER_PRECISIONS},
}


def compile_for_onnxruntime(
    source: str | os.PathLike[str] | Bundle,
    output: Path,
    *,
    target: str = "cpu",
    recipe: Recipe | None = None,
    is_source_kept: bool = True,
    report: Report = lambda _: None,
) -> Bundle:
    """Write a bundle for the CPU provider, with the shapes of a recipe if it has any. Unchanged files are copied.

    With `is_source_kept=False` the files are moved, and the source is no longer a bundle. Prefill runs once to compute the
    cached start of prompts (cached_start). The weight file of fp32 and int8 gets a second copy of the decoder's weights,
    prepacked for this CPU's kernels (shared_prepacking). An int8 bundle gets dynamically quantised graphs, with float32 outside
    the matmuls, and a second weight file with widened tensors and with the transition's experts in int8. Its weights are uint8
    if this CPU needs that (unsigned_weights).

    Raises BundleError for a bundle that is not portable, PlumeExportError for a precision that the provider cannot run and if
    ONNX Runtime fails, and MissingExtraError without ONNX Runtime.
    """
    bundle = source if isinstance(source, Bundle) else open_bundle(source)
    _check_source(bundle, "onnxruntime-cpu")
    changes: dict[str, Any] = {"backend": "onnxruntime"} | ({} if recipe is None else _limits_of(bundle, target, recipe))
    return _write_fused_bundle(bundle, output, changes, is_source_kept=is_source_kept, report=report)


def compile_for_onnxruntime_cuda(
    source: Bundle,
    output: Path,
    target: str,
    recipe: Recipe,
    *,
    is_source_kept: bool = True,
    report: Report = lambda _: None,
) -> Bundle:
    """Write a bundle for the CUDA provider with the shapes of a recipe. Images are scaled down to them.

    Raises like `compile_for_onnxruntime`, and PlumeExportError for a recipe whose shapes exceed the model's limits.
    """
    _check_source(source, "onnxruntime-cuda")
    changes = {"backend": "onnxruntime-cuda", **_limits_of(source, target, recipe)}
    return _write_fused_bundle(source, output, changes, is_source_kept=is_source_kept, report=report)


def _limits_of(source: Bundle, target: str, recipe: Recipe) -> dict[str, Any]:
    """Return the manifest fields with the shapes of a recipe. Raises PlumeExportError if they exceed the model's limits."""
    suffix_tokens = len(read_constants(source.path, source.manifest.model).suffix_embeddings)
    check_recipe_fits_model(recipe, source.manifest.model, suffix_tokens, target)
    return {"model": model_scaled_to(recipe, source.manifest.model, target), "limits": recipe.shapes}


def check_onnxruntime_precision(backend: RecipeBackend, precision: Precision) -> None:
    """Raise OptionError for a precision that a provider of ONNX Runtime cannot run."""
    if (backend, precision) in _REFUSED:
        reason, fix = _REFUSED[backend, precision]
        raise OptionError(f"The backend {backend} cannot run the precision {precision}: ONNX Runtime's {reason}.", fix=fix)


def _check_source(bundle: Bundle, backend: RecipeBackend) -> None:
    if bundle.manifest.backend != "onnx":
        raise BundleError(
            f"{bundle.path} is already compiled for {bundle.manifest.backend}.",
            fix="pass the bundle written by plume-export export",
        )
    precision = bundle.manifest.precision
    if (backend, precision) in _REFUSED:
        reason, fix = _REFUSED[backend, precision]
        raise BundleError(f"{bundle.path} is in {precision}, which {backend} cannot run: ONNX Runtime's {reason}.", fix=fix)


def _write_fused_bundle(
    bundle: Bundle, output: Path, changes: dict[str, Any], *, is_source_kept: bool, report: Report
) -> Bundle:
    """Write a bundle with rewritten graphs and with the given manifest fields changed."""
    for module, package in {"onnx_ir": "onnx-ir", "onnxscript": "onnxscript"}.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "compile")
    from .compiled_weights import CompiledWeights
    from .graph_passes import compile_graph

    if changes["backend"] == "onnxruntime" and bundle.manifest.precision == "int8":
        changes = changes | _integer_fields(bundle.manifest)
    manifest = msgspec.structs.replace(bundle.manifest, **changes)
    bring, graph_files = copy_file if is_source_kept else move_file, {f"{name}.onnx" for name in manifest.graphs}
    with new_bundle(output, report) as directory:
        for file in bundle.manifest.files:
            if file not in graph_files:
                bring(bundle.file(file), directory / file)
        weights = CompiledWeights(directory)
        for name in manifest.graphs:
            compile_graph(bundle, name, directory, manifest.product_weights, weights)
        bundle.check_not_replaced()
        weights.convert_to_uint8()
        if manifest.backend == "onnxruntime":
            manifest = _prepare_for_cpu(bundle, directory, manifest)
        write_manifest(directory, manifest)
    return open_written(output)


def _prepare_for_cpu(source: Bundle, directory: Path, manifest: Manifest) -> Manifest:
    """Cache the start of prompts and prepack the weights that two graphs share. Return the manifest with the cached start."""
    from .cached_start import cache_prompt_start
    from .shared_prepacking import share_prepacked_weights
    from .source_graph import expecting_exported

    with expecting_exported(source.graph_file("prefill")):
        manifest = msgspec.structs.replace(manifest, cached_start=cache_prompt_start(directory, manifest))
    if manifest.precision in _PREPACKED:
        with expecting_exported(source.graph_file("latent_step")):
            share_prepacked_weights(directory, manifest, _SHARED_WEIGHTS)
    return manifest


def _integer_fields(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest fields that differ in a compiled int8 bundle."""
    fields: dict[str, Any] = {
        "graphs": {name: _widened(spec) for name, spec in manifest.graphs.items()},
        "product_weights": "int8" if has_exact_int8_sums() else "uint8",
    }
    if manifest.quantisation is not None:  # the accuracy was measured for the portable graph
        fields["quantisation"] = msgspec.structs.replace(manifest.quantisation, measured=None, min_cosine=None)
    return fields


def _widened(spec: GraphSpec) -> GraphSpec:
    """Return the inputs and outputs of a graph with float32 in place of 16-bit dtypes."""

    def widened(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(msgspec.structs.replace(t, dtype="float32") if t.dtype == "float16" else t for t in tensors)

    return GraphSpec(widened(spec.inputs), widened(spec.outputs))
