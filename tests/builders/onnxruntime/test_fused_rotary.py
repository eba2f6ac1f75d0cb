"""Compiling fuses every rotary embedding, for angles of the batch's own and for angles that all frames share."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from plume_export.bundle import Bundle
from plume_export.spec import GraphName

from .test_fused_attention import operators


@pytest.mark.parametrize("graph", ["vision_encoder", "prefill", "latent_step"])
def test_queries_and_keys_of_every_layer_are_rotated_by_one_operator(tiny_cpu: Bundle, graph: GraphName) -> None:
    model = tiny_cpu.manifest.model
    layers = model.vision.depth if graph == "vision_encoder" else model.decoder.layers
    nodes = [node for node in ir.load(tiny_cpu.graph_file(graph)).graph if node.op_type == "RotaryEmbedding"]
    assert len(nodes) == 2 * layers
    assert len({node.inputs[2] for node in nodes}) == 1  # one table for all layers
    if graph != "prefill":
        assert "Sub" not in operators(tiny_cpu, graph)


def test_frames_share_their_angles(tiny_fp32: Bundle, tiny_cpu: Bundle) -> None:
    """Three frames of one shape, in one run of the compiled graph and of the portable one."""
    vision = tiny_fp32.manifest.model.vision
    patches = np.random.default_rng(0).standard_normal((3, 16, vision.patch_values)).astype(np.float32)
    positions = np.stack(np.divmod(np.arange(16), 4), 1)
    inputs = {"patches": patches, "patch_positions": positions}
    portable, compiled = (
        onnxruntime.InferenceSession(bundle.graph_file("vision_encoder")).run(None, inputs)[0]
        for bundle in (tiny_fp32, tiny_cpu)
    )
    np.testing.assert_allclose(compiled, portable, atol=2e-5)
    assert not np.allclose(portable[:4], portable[4:8], atol=1e-2)
