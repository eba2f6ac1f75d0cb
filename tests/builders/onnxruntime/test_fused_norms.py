"""Compiling fuses every RMS norm of the decoder; parity of the compiled bundle is measured in tests/parity."""

import onnx_ir as ir

from plume_export.bundle import Bundle

from .test_fused_attention import operators


def test_every_norm_is_one_operator(tiny_cpu: Bundle) -> None:
    layers = tiny_cpu.manifest.model.decoder.layers
    for graph in ("prefill", "latent_step"):
        found = operators(tiny_cpu, graph)
        assert found.count("SimplifiedLayerNormalization") == 2 * layers + 1
        assert "Reciprocal" not in found
    assert "SimplifiedLayerNormalization" not in operators(tiny_cpu, "vision_encoder")


def test_weights_and_epsilon_are_the_models(tiny_cpu: Bundle) -> None:
    graph = ir.load(tiny_cpu.graph_file("latent_step")).graph
    norms = [node for node in graph if node.op_type == "SimplifiedLayerNormalization"]
    epsilon = tiny_cpu.manifest.model.decoder.norm_epsilon
    assert {round(node.attributes["epsilon"].as_float() / epsilon, 5) for node in norms} == {1.0}
    assert norms[0].inputs[1].name == "decoder.layers.0.input_norm.weight"
    assert norms[-1].inputs[1].name == "decoder.norm.weight"
