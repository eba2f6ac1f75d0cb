"""Compile a portable bundle for ONNX Runtime's CPU or CUDA provider: fused attention, everything else as exported."""

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..bundle import CONSTANTS, Bundle, copy_file, move_file, new_bundle, open_bundle, write_manifest
from ..errors import BundleError, MissingExtraError, PlumeExportError
from ..recipe import Recipe, RecipeBackend, check_recipe_fits_model, model_scaled_to
from ..spec import Precision

# What a provider has no kernels for, why, and what to take instead. Source: docs/OperatorKernels.md of onnxruntime.
_REFUSED: dict[RecipeBackend, tuple[Precision, str, str]] = {
    "onnxruntime-cpu": (
        "bf16",
        "CPU provider has no bfloat16 kernels",
        "--precision fp32 or fp16 for a CPU; bf16 is for GPU targets",
    ),
    "onnxruntime-cuda": (
        "fp32",
        "CUDA provider has no float32 kernel of GroupQueryAttention",
        "--precision fp16 or bf16 for a GPU; fp32 is for the target cpu",
    ),
}


def compile_for_onnxruntime(source: str | os.PathLike[str] | Bundle, output: Path, *, is_source_kept: bool = True) -> Bundle:
    """Write a bundle for the CPU provider, of any shape. Files that do not change are copied.

    With `is_source_kept=False` they are moved, and the source is a bundle no more.

    Raises BundleError for a bundle that is not portable; PlumeExportError for a precision that the provider can not run.
    """
    bundle = source if isinstance(source, Bundle) else open_bundle(source)
    _check_source(bundle, "onnxruntime-cpu")
    return _write_fused_bundle(bundle, output, {"backend": "onnxruntime"}, is_source_kept=is_source_kept)


def compile_for_onnxruntime_cuda(
    source: Bundle, output: Path, target: str, recipe: Recipe, *, is_source_kept: bool = True
) -> Bundle:
    """Write a bundle for the CUDA provider that serves the shapes of a recipe, with images scaled down to them.

    Raises as `compile_for_onnxruntime` does, and PlumeExportError for a recipe that the model can not serve.
    """
    _check_source(source, "onnxruntime-cuda")
    model = model_scaled_to(recipe, source.manifest.model, target)
    with np.load(source.file(CONSTANTS)) as constants:
        suffix_tokens = len(constants["suffix_embeddings"])
    check_recipe_fits_model(recipe, source.manifest.model, suffix_tokens, target)
    changes = {"backend": "onnxruntime-cuda", "model": model, "limits": recipe.shapes}
    return _write_fused_bundle(source, output, changes, is_source_kept=is_source_kept)


def check_onnxruntime_precision(backend: RecipeBackend, precision: Precision) -> None:
    """Raise for a precision that a provider of ONNX Runtime can not run."""
    refused, reason, fix = _REFUSED[backend]
    if precision == refused:
        raise PlumeExportError(f"The backend {backend} can not run --precision {precision}: ONNX Runtime's {reason}.", fix=fix)


def _check_source(bundle: Bundle, backend: RecipeBackend) -> None:
    if bundle.manifest.backend != "onnx":
        raise BundleError(
            f"{bundle.path} is already compiled for {bundle.manifest.backend}.",
            fix="pass the bundle that plume-export export wrote",
        )
    check_onnxruntime_precision(backend, bundle.manifest.precision)


def _write_fused_bundle(bundle: Bundle, output: Path, changes: dict[str, Any], *, is_source_kept: bool) -> Bundle:
    """Write a bundle whose vision and prefill attention is fused, with these fields of its manifest changed."""
    try:
        import onnx_ir as ir
    except ImportError:
        raise MissingExtraError("onnx-ir", "compile") from None
    from .fused_attention import fuse_prefill_attention, fuse_vision_attention

    manifest = bundle.manifest
    rewrites = {
        "vision_encoder.onnx": (fuse_vision_attention, manifest.model.vision.depth),
        "prefill.onnx": (fuse_prefill_attention, manifest.model.decoder.layers - 1),
    }
    bring = copy_file if is_source_kept else move_file
    with new_bundle(output) as directory:
        for name in manifest.files:
            if name not in rewrites:
                bring(bundle.file(name), directory / name)
                continue
            fuse, expected = rewrites[name]
            graph = ir.load(bundle.file(name))
            fused = fuse(graph, manifest.model)
            assert fused == expected, f"{name}: fused {fused} attentions of {expected}"
            ir.save(graph, directory / name)
        write_manifest(directory, msgspec.structs.replace(manifest, **changes))
    return open_bundle(output, verify_hashes=False)
