"""Compile a portable bundle for ONNX Runtime's CPU provider: fused attention, everything else as exported."""

import os
from pathlib import Path

import msgspec

from ..bundle import Bundle, copy_file, move_file, new_bundle, open_bundle, write_manifest
from ..errors import BundleError, MissingExtraError, PlumeExportError


def compile_for_onnxruntime(source: str | os.PathLike[str] | Bundle, output: Path, *, is_source_kept: bool = True) -> Bundle:
    """Write a bundle whose vision and prefill attention is fused. Files that do not change are copied.

    With `is_source_kept=False` they are moved, and the source is a bundle no more.

    Raises BundleError for a bundle that is not portable or whose precision the CPU provider can not run.
    """
    try:
        import onnx_ir as ir
    except ImportError:
        raise MissingExtraError("onnx-ir", "compile") from None
    from .fused_attention import fuse_prefill_attention, fuse_vision_attention

    bundle = source if isinstance(source, Bundle) else open_bundle(source)
    manifest = bundle.manifest
    if manifest.backend != "onnx":
        raise BundleError(
            f"{bundle.path} is already compiled for {manifest.backend}.", fix="pass the bundle that plume-export export wrote"
        )
    check_cpu_precision(manifest.precision)
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
        write_manifest(directory, msgspec.structs.replace(manifest, backend="onnxruntime"))
    return open_bundle(output, verify_hashes=False)


def check_cpu_precision(precision: str) -> None:
    """Raise for a precision that ONNX Runtime's CPU provider can not run."""
    if precision == "bf16":
        raise PlumeExportError(
            "--target cpu --precision bf16: ONNX Runtime's CPU provider has no bfloat16 kernels.",
            fix="--precision fp32 or fp16 for a CPU; bf16 is for GPU targets",
        )
