"""Quantised layers become integer matmuls, everything else float32; what is not quantised stays a MatMul."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from plume_export.builders.onnxruntime.compiled_weights import ADDED_WEIGHTS, CompiledWeights
from plume_export.builders.onnxruntime.dynamic_quantisation import DynamicQuantisation
from tests.onnx_text import graph_from_text, operators, run, values

RANDOM = np.random.default_rng(0)
LAYER = RANDOM.integers(-127, 128, (8, 4)).astype(np.int8)
TABLE = RANDOM.integers(-127, 128, (6, 8)).astype(np.int8)
EXPERTS = RANDOM.normal(size=(2, 8, 4)).astype(np.float16)
SCALES = RANDOM.uniform(0.01, 0.02, 8).astype(np.float16)


def halves(array: NDArray[Any]) -> str:
    """Return float16 values as ONNX text has them: their bits."""
    return values(np.asarray(array, np.float16).view(np.uint16))


# As `QuantiseGraph` writes them: a layer in int8, one whose input stays in 16 bit, and the embedding table.
LAYERS = f"""
layers (int64[rows] ids) => (float16[rows, 4] y, float16[rows, 4] z, float16[rows, 4] plain)
<int8[8, 4] layer = {values(LAYER)}, float16[4] layer_scale = {halves(SCALES[:4])},
 int8[8, 4] weight_only = {values(LAYER[::-1])}, float16[4] weight_only_scale = {halves(SCALES[4:])},
 float16[8, 4] unquantised = {halves(RANDOM.normal(size=(8, 4)))},
 int8[6, 8] table = {values(TABLE)}, float16[6] table_scale = {halves(SCALES[:6])},
 float16 input_scale = {halves(np.array(0.02))}, int8 zero = {{0}},
 float16[rows, 8] x, float[rows, 8] wide, float16[rows, 8] narrow>
{{
    rows = DequantizeLinear <axis: int = 0> (table, table_scale)
    x = Gather <axis: int = 0> (rows, ids)
    integers = QuantizeLinear (x, input_scale, zero)
    activation = DequantizeLinear (integers, input_scale, zero)
    weight = DequantizeLinear <axis: int = 1> (layer, layer_scale)
    y = MatMul (activation, weight)
    second_weight = DequantizeLinear <axis: int = 1> (weight_only, weight_only_scale)
    z = MatMul (x, second_weight)
    wide = Cast <to: int = 1> (x)
    narrow = Cast <to: int = 10> (wide)
    plain = MatMul (narrow, unquantised)
}}
"""
INPUTS = {"ids": np.array([5, 0, 3])}
# All experts read one input, by Unsqueeze; or each has its own.
SHARED_INPUT = f"""
experts (float16[rows, 8] x, float16[2, rows, 8] xs) => (float16[2, rows, 4] y)
<float16[2, 8, 4] stack = {halves(EXPERTS)}, int64[1] first = {{0}}>
{{
    one = Unsqueeze (x, first)
    y = MatMul (one, stack)
}}
"""
OWN_INPUTS = SHARED_INPUT.replace("MatMul (one", "MatMul (xs")


def quantised(text: str, directory: Path) -> ir.Model:
    model = graph_from_text(text)
    DynamicQuantisation(CompiledWeights(directory))(model)
    return model


def test_each_layer_is_quantised_as_the_plan_has_it(tmp_path: Path) -> None:
    model = quantised(LAYERS, tmp_path)
    after = operators(model)
    assert after.count("MatMulIntegerToFloat") == 2
    assert after.count("MatMul") == 1
    in_two_parts = {
        node.inputs[1].name: node.inputs[0].producer().op_type == "Concat"
        for node in model.graph
        if node.op_type == "MatMulIntegerToFloat"
    }
    assert in_two_parts == {"layer": False, "weight_only": True}
    for name, weight in (("layer", LAYER), ("weight_only", LAYER[::-1]), ("table", TABLE)):
        np.testing.assert_array_equal(model.graph.initializers[name].const_value.numpy(), weight)
    for expected, actual in zip(run(graph_from_text(LAYERS), INPUTS), run(model, INPUTS), strict=True):
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, atol=0.02 * np.abs(expected).max())


def test_the_table_is_gathered_before_it_is_widened(tmp_path: Path) -> None:
    model = quantised(LAYERS, tmp_path)
    assert [node.op_type for node in model.graph.initializers["table"].consumers()] == ["Gather"]


def test_no_float16_and_no_idle_cast_remains(tmp_path: Path) -> None:
    model = quantised(LAYERS, tmp_path)
    computed = [value for node in model.graph for value in node.outputs]
    assert ir.DataType.FLOAT16 not in {value.dtype for value in (*computed, *model.graph.initializers.values())}
    (cast,) = (node for node in model.graph if node.op_type == "Cast")  # of the table's rows
    assert cast.inputs[0].producer().op_type == "Gather"


@pytest.mark.parametrize("text", [SHARED_INPUT, OWN_INPUTS])
def test_experts_are_quantised_one_by_one(text: str, tmp_path: Path) -> None:
    inputs = {"x": RANDOM.normal(size=(3, 8)), "xs": RANDOM.normal(size=(2, 3, 8))}
    (expected,) = run(graph_from_text(text), {name: array.astype(np.float16) for name, array in inputs.items()})
    model = quantised(text, tmp_path)
    assert operators(model).count("MatMulIntegerToFloat") == 2
    assert {"stack.0", "stack.1", "stack.0_scale", "stack.1_scale"} <= set(model.graph.initializers)
    assert "stack" not in model.graph.initializers
    (actual,) = run(model, {name: array.astype(np.float32) for name, array in inputs.items()})
    np.testing.assert_allclose(actual, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("int8[8, 4] layer =", "uint8[8, 4] layer =", id="another dtype"),
        pytest.param(
            "weight = DequantizeLinear <axis: int = 1> (layer, layer_scale)",
            "weight = Cast <to: int = 10> (layer)",
            id="a cast",
        ),
        pytest.param("MatMul (activation, weight)", "Gemm (activation, weight)", id="another operator"),
    ],
)
def test_what_is_not_a_quantised_matmul_stays(text: str, instead: str, tmp_path: Path) -> None:
    altered = LAYERS.replace(text, instead)
    if instead.startswith("uint8"):
        altered = altered.replace(values(LAYER), values(LAYER.astype(np.int16) + 128), 1)
    model = quantised(altered, tmp_path)
    (y,) = (value for value in model.graph.outputs if value.name == "y")
    assert y.producer().op_type in ("MatMul", "Gemm")
    assert operators(model).count("MatMulIntegerToFloat") == 1


def test_large_tensors_that_are_widened_go_to_a_file(tmp_path: Path) -> None:
    large = LAYERS.replace("float16[8, 4] unquantised", "float16[8, 4096] unquantised").replace(
        "float16[rows, 4] plain", "float16[rows, 4096] plain"
    )
    start = large.index("unquantised = {") + len("unquantised = ")
    end = large.index("}", start) + 1
    data = RANDOM.normal(size=(8, 4096)).astype(np.float16)
    model = quantised(large[:start] + halves(data) + large[end:], tmp_path)
    stored = model.graph.initializers["unquantised"].const_value
    assert isinstance(stored, ir.ExternalTensor)
    np.testing.assert_array_equal(stored.numpy(), data.astype(np.float32))
    assert [file.name for file in tmp_path.iterdir()] == [ADDED_WEIGHTS]


def test_bfloat16_is_an_error(tmp_path: Path) -> None:
    text = SHARED_INPUT.replace("float16", "bfloat16")
    with pytest.raises(ir.passes.PreconditionError) as error:
        quantised(text, tmp_path)
    assert "x is bfloat16" in str(error.value.__cause__)
