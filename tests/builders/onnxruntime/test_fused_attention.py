"""Compiling fuses every attention, and memory then grows linearly."""

import onnx_ir as ir

from plume_export.bundle import Bundle


def operators(bundle: Bundle, graph: str) -> list[str]:
    return [node.op_type for node in ir.load(bundle.file(f"{graph}.onnx")).graph]


def test_every_attention_is_fused(tiny_cpu: Bundle) -> None:
    model = tiny_cpu.manifest.model
    vision = operators(tiny_cpu, "vision_encoder")
    assert vision.count("MultiHeadAttention") == model.vision.depth
    assert "Softmax" not in vision
    prefill = operators(tiny_cpu, "prefill")
    assert prefill.count("GroupQueryAttention") == model.decoder.layers - 1
    assert prefill.count("Softmax") == 1  # the last layer's two rows


def test_weights_have_one_name(tiny_fp32: Bundle, tiny_cpu: Bundle) -> None:
    # onnx refuses external data with a second name ("a potential hardlink attack").
    weights = [bundle.file("weights.safetensors") for bundle in (tiny_fp32, tiny_cpu)]
    assert [file.stat().st_nlink for file in weights] == [1, 1]


def test_portable_bundle_is_untouched(tiny_fp32: Bundle) -> None:
    assert "MultiHeadAttention" not in operators(tiny_fp32, "vision_encoder")
