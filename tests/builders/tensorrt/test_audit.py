"""What figures prove of an engine, and what they do not."""

from typing import Any

import msgspec
import pytest

from plume_export.builders.tensorrt.audit import audit_engine, check_engine, copied_weight_bytes
from plume_export.builders.tensorrt.engine_layers import layers_from_log
from plume_export.builders.tensorrt.graph_weights import GraphWeights, duplicate_bytes, weights_of_graph
from plume_export.bundle import Bundle, EngineEntry
from plume_export.errors import PlumeExportError

# The 2B model's prefill as TensorRT-RTX 1.7 built it, its layers estimated.
GOOD = EngineEntry(
    bytes=3_108_200_000,
    weights_bytes=3_087_500_000,
    activation_bytes=2_299_000_000,
    profile={},
    shared_weights=(),
    build_seconds=30,
    build_peak_memory_bytes=None,
    layers=260,
    initializer_bytes=3_087_400_000,
    copied_weight_bytes=0,
)
# TensorRT-RTX 1.7, the 2B model's latent_step with shared weights for one prompt alone. Strides and the like are left out.
COPIES = """Layers:
Name: __myl_Cast_myl0_8, LayerType: kgen, Inputs: [ { Name: state, Dimensions: [1,1536], Datatype: Float }], Constants: [], \
Outputs: [ { Name: _to_copy.1_myl0, Dimensions: [1,1536], Datatype: Half }], TacticName: x, StreamId: 0
Name: __myl_Move_myl0_10, LayerType: kgen, Inputs: [ { Name: transition.experts.fc1_weight, Dimensions: [5,1536,3072], \
Datatype: Half }], Constants: [], Outputs: [ { Name: __myln_k_arg__bb1_112_myl0, Dimensions: [5,1536,3072], \
Datatype: Half }], TacticName: x, StreamId: 1
Name: node_matmul_1_myl0_16, LayerType: gemm, Inputs: [ { Name: _to_copy.1_myl0, Dimensions: [1,1536], Datatype: Half }, \
{ Name: __myln_k_arg__bb1_112_myl0, Dimensions: [5,1536,3072], Datatype: Half }], Constants: [ { Name: alpha, Dimensions: [1], \
Datatype: Float }], Outputs: [ { Name: matmul_1, Dimensions: [5,1,3072], Datatype: Half }], TacticName: x, StreamId: 1
"""


def changed(**fields: Any) -> EngineEntry:
    return msgspec.structs.replace(GOOD, **fields)


def test_a_good_engine() -> None:
    audit = audit_engine(GOOD)
    assert audit.findings == ()
    assert audit.engine_over_weights == pytest.approx(1.0067, abs=1e-4)
    assert audit.weights_over_initializers == pytest.approx(1, abs=1e-4)
    assert audit.code_bytes_of_layer == pytest.approx(79_600, rel=0.01)
    check_engine("prefill", GOOD)


def test_weights_held_twice_fail() -> None:
    """One projection of 28 held twice is enough."""
    twice = changed(weights_bytes=GOOD.weights_bytes + 28 * 1536 * 2048 * 2, bytes=GOOD.bytes + 28 * 1536 * 2048 * 2)
    with pytest.raises(PlumeExportError, match=r"engine of prefill holds .* some weights are held more than once") as caught:
        check_engine("prefill", twice)
    assert 'weights = "shared"' in str(caught.value)


def test_more_than_code_and_copies_are_told() -> None:
    larger = audit_engine(changed(bytes=GOOD.bytes + 200_000_000))
    assert ["besides its weights" in finding.text for finding in larger.findings] == [True]
    copying = audit_engine(changed(copied_weight_bytes=94_371_840))
    assert ["copies 94,371,840 bytes" in finding.text for finding in copying.findings] == [True]
    assert not any(finding.is_defect for finding in (*larger.findings, *copying.findings))


def test_what_a_builder_does_not_tell_is_not_judged() -> None:
    silent = changed(weights_bytes=None, layers=None, initializer_bytes=None, copied_weight_bytes=None)
    audit = audit_engine(silent)
    assert audit.findings == ()
    assert audit.engine_over_weights is audit.code_bytes_of_layer is audit.weights_over_initializers is None


def test_a_copied_weight() -> None:
    layers = layers_from_log(COPIES)
    assert len(layers) == 3
    assert copied_weight_bytes(layers, ["state"]) == 5 * 1536 * 3072 * 2
    assert copied_weight_bytes(layers, ["state", "transition.experts.fc1_weight"]) == 0  # as if the caller wrote it
    assert copied_weight_bytes(layers[:1], ["state"]) == 0


def test_bytes_that_several_graphs_hold(tiny_fp16: Bundle) -> None:
    one, two = GraphWeights(frozenset({(0, 10), (10, 5)}), 3), GraphWeights(frozenset({(0, 10)}), 3)
    assert (one.bytes, two.bytes) == (18, 13)
    assert duplicate_bytes([one]) == 0
    assert duplicate_bytes([one, two]) == 10
    assert duplicate_bytes([one, two, two]) == 20
    graphs = [weights_of_graph(tiny_fp16.graph_file(name)) for name in tiny_fp16.manifest.graphs]
    distinct = sum(length for _, length in frozenset().union(*(graph.stored for graph in graphs)))
    assert distinct == sum(graph.bytes - graph.inline_bytes for graph in graphs) - duplicate_bytes(graphs)
    assert distinct == pytest.approx(tiny_fp16.manifest.files["weights.safetensors"].bytes, rel=0.01)
