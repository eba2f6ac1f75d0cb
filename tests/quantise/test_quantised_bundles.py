"""The graphs of integer bundles: their form, and that TensorRT 10 takes it."""

import json
import struct
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from plume_export.bundle import WEIGHTS, Bundle
from plume_export.checkpoint import Checkpoint
from plume_export.quantise.activation_ranges import Ranges
from plume_export.quantise.folds import linear_layers
from plume_export.quantise.quantisation_plan import MOST_ROW_ERROR, QuantisationPlan
from plume_export.spec import GRAPH_NAMES, INTEGER_PRECISIONS, IntegerPrecision
from tests.graphs.test_operators import TABLE_TYPES, read_table
from tests.quantise.bench import Bench, plan_of

_TYPES = {**TABLE_TYPES, "INT8": "INT8", "INT4": "INT4"}


@pytest.fixture(scope="module", params=INTEGER_PRECISIONS)
def scheme(request: pytest.FixtureRequest) -> IntegerPrecision:
    return request.param


@pytest.fixture(scope="module")
def plan(scheme: IntegerPrecision, plume_tiny: Checkpoint, shipped_ranges: Ranges) -> QuantisationPlan:
    return plan_of(plume_tiny, shipped_ranges, scheme)


@pytest.fixture(scope="module")
def bundle(
    plan: QuantisationPlan, plume_tiny: Checkpoint, plume_tiny_fp16: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    return Bench(plume_tiny_fp16, tmp_path_factory.mktemp("integers"), None).write(plume_tiny, plan)


@pytest.mark.slow
def test_only_what_tensorrt_10_takes(bundle: Bundle, scheme: IntegerPrecision) -> None:
    table = read_table()
    for name in GRAPH_NAMES:
        graph = ir.load(bundle.graph_file(name))
        assert dict(graph.graph.opset_imports) == {"": 21 if scheme == "int4-weight" else 20}
        for node in graph.graph:
            row = table[node.op_type]
            assert row["supported"] == "Y", node.op_type
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                assert node.inputs[1].dtype == ir.DataType.FLOAT16
                assert _TYPES[node.inputs[0].dtype.name] in ("FP16", "INT8", "INT4")
        onnx.checker.check_model(str(bundle.graph_file(name)))


@pytest.mark.slow
def test_every_layer_is_quantised_in_the_form_that_fuses(
    bundle: Bundle, plan: QuantisationPlan, plume_tiny: Checkpoint, scheme: IntegerPrecision
) -> None:
    found = set()
    for name in GRAPH_NAMES:
        for node in ir.load(bundle.graph_file(name)).graph:
            dequantise = node.inputs[1].producer() if node.op_type == "MatMul" else None
            if dequantise is None or dequantise.op_type != "DequantizeLinear":
                continue
            weight, scale = dequantise.inputs[:2]
            layer = weight.name.removesuffix(".weight")
            found.add((name, layer))
            is_int4 = plan.schemes[name][layer] == "int4-weight"
            assert weight.dtype == (ir.DataType.INT4 if is_int4 else ir.DataType.INT8)
            assert tuple(scale.shape) == ((weight.shape[0] // 128, weight.shape[1]) if is_int4 else (weight.shape[1],))
            activation = node.inputs[0].producer()
            has_integer_input = plan.schemes[name][layer] == "int8"
            assert (activation.op_type == "DequantizeLinear") == has_integer_input
            assert has_integer_input == (scheme == "int8" and layer not in plan.weight_only)
            if has_integer_input:
                assert activation.inputs[0].producer().op_type == "QuantizeLinear"
    layers = linear_layers(plume_tiny.model)
    vision = {("vision_encoder", layer) for layer in layers if layer.startswith("visual.")}
    decoder = {(name, layer) for name in ("prefill", "latent_step") for layer in layers if layer.startswith("decoder.")}
    assert found == vision | decoder


def test_attention_softmax_norms_and_router_stay(bundle: Bundle, plume_tiny_fp16: Bundle) -> None:
    """Beside the quantisers, the operators are those of the float16 graph."""
    for name in GRAPH_NAMES:
        operators = [
            [node.op_type for node in ir.load(one.graph_file(name)).graph if "tizeLinear" not in node.op_type]
            for one in (bundle, plume_tiny_fp16)
        ]
        assert operators[0] == operators[1]


def test_weights_are_stored_once_and_are_smaller(bundle: Bundle, plume_tiny_fp16: Bundle, scheme: IntegerPrecision) -> None:
    sizes = [one.file(WEIGHTS).stat().st_size for one in (bundle, plume_tiny_fp16)]
    assert sizes[0] < (0.55 if scheme == "int4-weight" else 0.72) * sizes[1]
    names = stored_names(bundle.file(WEIGHTS))
    assert len(names) == len(set(names))


def test_layers_that_int8_does_not_suit_keep_their_inputs(plan: QuantisationPlan, scheme: IntegerPrecision) -> None:
    """Every down-projection of the sample model, whose rows differ most in magnitude; no projection of normed values."""
    if scheme != "int8":
        assert plan.weight_only == ()
        return
    assert {f"decoder.layers.{layer}.down_proj" for layer in range(4)} <= set(plan.weight_only)
    assert not any(layer.endswith(("qkv_proj", "gate_up_proj", "qkv", "fc1")) for layer in plan.weight_only)
    assert all(plan.errors[layer] <= MOST_ROW_ERROR for layer in plan.errors)


def test_the_same_bytes_from_a_plan_with_nothing_kept(bundle: Bundle, plan: QuantisationPlan) -> None:
    assert plan.excluding([]) == plan or plan.excluding([]).schemes == plan.schemes
    kept = plan.excluding(["decoder.layers.0.o_proj"])
    assert all("decoder.layers.0.o_proj" not in schemes for schemes in kept.schemes.values())
    assert kept.excluded == ("decoder.layers.0.o_proj",)


def stored_names(file: Path) -> list[str]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return [name for name, _ in json.loads(stream.read(length), object_pairs_hook=list)]
