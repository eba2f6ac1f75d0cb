"""Compile a portable bundle for ONNX Runtime's CPU or CUDA provider: fused attention, norms and rotary embeddings.

For the CPU, prefill gets a cache of the start of prompts. An int8 bundle gets graphs with dynamically quantised matmuls;
everything else is float32.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from ...bundle import (
    Bundle,
    ProductWeights,
    copy_file,
    move_file,
    new_bundle,
    open_bundle,
    open_written,
    read_constants,
    write_manifest,
)
from ...errors import BundleError, MissingExtraError, OptionError
from ...machine.cores import sums_int8_exactly
from ...progress import Report
from ...recipe import Recipe, RecipeBackend, check_recipe_fits_model, model_scaled_to
from ...spec import INTEGER_PRECISIONS, GraphName, GraphSpec, ModelSpec, Precision, TensorSpec

_WIDENS_WEIGHTS = "CPU provider has no float16 kernels and would convert whole weights to float32 in every run"
_CPU_INTEGERS = "choose --precision int8 for a CPU; quantised weights with 16-bit activations are for GPU targets"
_NO_CUDA_INTEGERS = "CUDA provider would convert quantised weights in every run"
_CUDA_INTEGERS = (
    "choose --precision fp16 or bf16 for cuda; quantised precisions are for TensorRT, TensorRT-RTX and, as int8, for a CPU"
)
# Beside weights.safetensors: tensors that the CPU graphs store in another dtype than the portable graphs.
ADDED_WEIGHTS = "weights-cpu.bin"
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
    try:
        import onnx_ir as ir
    except ImportError:
        raise MissingExtraError("onnx-ir", "compile") from None
    from .cached_start import cache_prompt_start
    from .dynamic_quantisation import quantise_dynamically
    from .graph_edits import AddedWeights
    from .shared_prepacking import share_prepacked_weights
    from .source_graph import expecting_exported, read_source_graph
    from .unsigned_weights import FilePart, add_128, take_unsigned_weights

    manifest = bundle.manifest
    is_dynamic = changes["backend"] == "onnxruntime" and manifest.precision == "int8"
    if is_dynamic:
        product_weights: ProductWeights = "int8" if sums_int8_exactly() else "uint8"
        graphs = {name: _widened(spec) for name, spec in manifest.graphs.items()}
        changes = {**changes, "graphs": graphs, "product_weights": product_weights}
        if manifest.quantisation is not None:  # the accuracy was measured for the portable graph
            changes["quantisation"] = msgspec.structs.replace(manifest.quantisation, measured=None, min_cosine=None)
    rewritten = {f"{name}.onnx": name for name in manifest.graphs}
    bring = copy_file if is_source_kept else move_file
    with new_bundle(output, report) as directory:
        weights = AddedWeights(directory / ADDED_WEIGHTS)
        unsigned: set[FilePart] = set()
        for name in manifest.files:
            if name not in rewritten:
                bring(bundle.file(name), directory / name)
        for name, graph_name in rewritten.items():
            # The graph is read from its new directory, so that weights are found there after copying and moving alike.
            copy_file(bundle.checked_graph_file(graph_name), directory / name)
            graph = read_source_graph(directory / name, manifest.graphs[graph_name], bundle.graph_file(graph_name))
            with expecting_exported(bundle.graph_file(graph_name)):
                if is_dynamic:
                    quantise_dynamically(graph, weights)
                    if product_weights == "uint8":
                        unsigned |= take_unsigned_weights(graph)
                _fuse_operators(graph, graph_name, manifest.model)
                ir.save(graph, directory / name)
        bundle.check_not_replaced()
        manifest = msgspec.structs.replace(manifest, **changes)
        with expecting_exported(bundle.graph_file("prefill")):
            if unsigned:
                add_128(directory, unsigned)
            if manifest.backend == "onnxruntime":
                manifest = msgspec.structs.replace(manifest, cached_start=cache_prompt_start(directory, manifest))
        if manifest.backend == "onnxruntime" and manifest.precision in _PREPACKED:
            with expecting_exported(bundle.graph_file("latent_step")):
                share_prepacked_weights(directory, manifest, _SHARED_WEIGHTS)
        write_manifest(directory, manifest)
    return open_written(output)


def _fuse_operators(graph: Any, name: GraphName, model: ModelSpec) -> None:
    """Fuse norms, rotary embeddings and attention. Attention of the latent step has few queries and is not fused."""
    from .fused_attention import fuse_prefill_attention, fuse_vision_attention
    from .fused_norms import fuse_norms
    from .fused_rotary import fuse_rotary

    depth, layers = model.vision.depth, model.decoder.layers
    is_vision = name == "vision_encoder"
    attentions = {"vision_encoder": depth, "prefill": layers - 1, "latent_step": 0}
    expected = (0 if is_vision else 2 * layers + 1, 2 * (depth if is_vision else layers), attentions[name])
    fused_attentions = 0
    if is_vision:
        fused_attentions = fuse_vision_attention(graph, model)
    elif name == "prefill":
        fused_attentions = fuse_prefill_attention(graph, model)
    fused = (fuse_norms(graph), fuse_rotary(graph), fused_attentions)
    assert fused == expected, f"{name}: fused {fused} norms, rotations and attentions, expected {expected}"


def _widened(spec: GraphSpec) -> GraphSpec:
    """Return the inputs and outputs of a graph with float32 in place of 16-bit dtypes."""

    def widened(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(msgspec.structs.replace(t, dtype="float32") if t.dtype == "float16" else t for t in tensors)

    return GraphSpec(widened(spec.inputs), widened(spec.outputs))
