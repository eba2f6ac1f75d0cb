"""Q/DQ before the named layers of a small graph, and before nothing else."""

import numpy as np
import onnx_ir as ir
import pytest

from plume_export.quantise.quantise_graph import QuantiseGraph
from plume_export.spec import INT4_BLOCK, IntegerPrecision
from tests.onnx_text import check_same_results, graph_from_text, operators, run, values

RANDOM = np.random.default_rng(0)
# Weights are these integers by a scale that is a power of 2: quantised, they are the same.
INTEGERS = {
    "first.weight": RANDOM.integers(-7, 8, (INT4_BLOCK, 4)),
    "second.weight": RANDOM.integers(-7, 8, (INT4_BLOCK, 4)),
    "embed_tokens.weight": RANDOM.integers(-127, 128, (6, INT4_BLOCK)),
}
SCALE = 0.25
# ONNX text has no dots in names.
LAYERS = f"""
layers (int64[rows] ids) => (float[rows, 4] y, float[rows, 4] z)
<float[{INT4_BLOCK}, 4] first_weight = {values(INTEGERS["first.weight"] * SCALE)},
 float[{INT4_BLOCK}, 4] second_weight = {values(INTEGERS["second.weight"] * SCALE)},
 float[6, {INT4_BLOCK}] embed_tokens_weight = {values(INTEGERS["embed_tokens.weight"] * SCALE)}>
{{
    x = Gather <axis: int = 0> (embed_tokens_weight, ids)
    y = MatMul (x, first_weight)
    z = MatMul (x, second_weight)
}}
"""
INPUTS = {"ids": np.array([5, 0, 3])}


def quantised(schemes: dict[str, IntegerPrecision], text: str = LAYERS) -> ir.Model:
    """Return the quantised graph. Initializers have no data before and after, as in an export."""
    model = graph_from_text(text)
    for value in list(model.graph.initializers.values()):
        value.name = str(value.name).replace("_weight", ".weight")
        value.const_value = None
    return QuantiseGraph(schemes, dict.fromkeys(schemes, SCALE))(model).model


def set_weights(model: ir.Model) -> None:
    """Give initializers their data, as the export does."""
    initializers = model.graph.initializers
    for name, integers in INTEGERS.items():
        value = initializers[name]
        assert value.dtype is not None
        if value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor((integers * SCALE).astype(np.float32), name=name)
            continue
        value.const_value = ir.tensor(integers.astype(value.dtype.numpy()), name=name, dtype=value.dtype)
        scale = initializers[f"{name}_scale"]
        assert scale.shape is not None
        scale.const_value = ir.tensor(np.full(scale.shape.numpy(), SCALE, np.float32), name=scale.name)


def output(model: ir.Model, name: str) -> ir.Node:
    node = next(value for value in model.graph.outputs if value.name == name).producer()
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("scheme", "dtype", "scale_shape", "opset", "inserted"),
    [
        ("int8", ir.DataType.INT8, (4,), 20, ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear"]),
        ("int8-weight", ir.DataType.INT8, (4,), 20, ["DequantizeLinear"]),
        ("int4-weight", ir.DataType.INT4, (1, 4), 21, ["DequantizeLinear"]),
    ],
)
def test_a_layer_is_quantised_and_computes_the_same(
    scheme: IntegerPrecision, dtype: ir.DataType, scale_shape: tuple[int, ...], opset: int, inserted: list[str]
) -> None:
    model = quantised({"first": scheme})
    weight, scale = (model.graph.initializers[name] for name in ("first.weight", "first.weight_scale"))
    assert (weight.dtype, scale.dtype) == (dtype, ir.DataType.FLOAT)
    assert weight.shape == [INT4_BLOCK, 4]
    assert scale.shape == list(scale_shape)
    assert weight.const_value is scale.const_value is None
    assert model.opset_imports[""] == opset
    assert sorted(operators(model)) == sorted(["Gather", "MatMul", "MatMul", "DequantizeLinear", *inserted])
    set_weights(model)
    check_same_results(run(graph_from_text(LAYERS), INPUTS), run(model, INPUTS), atol=1e-3)


def test_zero_points_are_zero_and_shared() -> None:
    model = quantised({"first": "int8", "second": "int8"})
    (zero,) = {node.inputs[2] for node in model.graph if node.op_type.endswith("tizeLinear") and len(node.inputs) > 2}
    assert zero.dtype == ir.DataType.INT8
    assert zero.const_value.numpy() == 0


def test_a_layer_that_is_not_named_stays() -> None:
    model = quantised({"first": "int8"})
    assert [value.name for value in output(model, "z").inputs] == ["x", "second.weight"]
    assert model.graph.initializers["second.weight"].dtype == ir.DataType.FLOAT


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("embed_tokens_weight", "another_weight", id="another name"),
        pytest.param("Gather <axis: int = 0>", "GatherElements <axis: int = 0>", id="another operator"),
    ],
)
def test_a_table_that_is_not_of_the_embeddings_stays(text: str, instead: str) -> None:
    model = quantised({"first": "int8-weight"}, LAYERS.replace(text, instead))
    assert operators(model).count("DequantizeLinear") == 1
    table = next(node.inputs[0] for node in model.graph if node.op_type.startswith("Gather"))
    assert table.dtype == ir.DataType.FLOAT


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("MatMul (x, first_weight)", "Gemm (x, first_weight)", id="another operator"),
        pytest.param("MatMul (x, second_weight)", "MatMul (x, first_weight)", id="two matmuls"),
        pytest.param("MatMul (x, first_weight)", "MatMul (first_weight, x)", id="another input"),
        pytest.param("first_weight", "third_weight", id="another name"),
    ],
)
def test_a_layer_that_is_not_one_matmul_is_an_error(text: str, instead: str) -> None:
    with pytest.raises(ir.passes.PreconditionError, match=r"first\.weight is not the second input of one MatMul"):
        quantised({"first": "int8"}, LAYERS.replace(text, instead))
