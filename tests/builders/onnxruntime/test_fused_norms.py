"""RMS norms become one operator; what only looks like one stays."""

import numpy as np
import onnx_ir as ir
import pytest

from plume_export.builders.onnxruntime.fused_norms import RMSNorm
from plume_export.builders.onnxruntime.fusion import Fuse
from tests.onnx_text import check_same_results, graph_from_text, operators, run

NORM = """
norm (float[batch, tokens, 8] hidden, float[batch, tokens, 8] other, float computed)
    => (float[batch, tokens, 8] normed)
<float[8] weight = {1, 2, 3, 4, 5, 6, 7, 8}, float epsilon = {0.01}, int64[1] axis = {-1}>
{
    square = Mul (hidden, hidden)
    mean = ReduceMean <keepdims: int = 1> (square, axis)
    positive = Add (mean, epsilon)
    root = Sqrt (positive)
    inverse = Reciprocal (root)
    unit = Mul (hidden, inverse)
    normed = Mul (weight, unit)
}
"""
INPUTS = {name: np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32) for name in ("hidden", "other")}
INPUTS["computed"] = np.array(0.01, np.float32)


def fuse(model: ir.Model, count: int) -> ir.passes.PassResult:
    return Fuse("SimplifiedLayerNormalization", RMSNorm.rule(), count)(model)


def test_a_norm_is_one_operator() -> None:
    model = graph_from_text(NORM)
    before = run(model, INPUTS)
    assert fuse(model, 1).modified
    assert operators(model) == ["SimplifiedLayerNormalization"]
    (norm,) = model.graph
    assert [value.name for value in (*norm.inputs, *norm.outputs)] == ["hidden", "weight", "normed"]
    assert norm.attributes["epsilon"].as_float() == pytest.approx(0.01)
    check_same_results(before, run(model, INPUTS))


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("{-1}", "{1}", id="another axis"),
        pytest.param("Mul (hidden, hidden)", "Mul (hidden, other)", id="a product, not a square"),
        pytest.param("unit = Mul (hidden", "unit = Mul (other", id="another value is scaled"),
        pytest.param("Sqrt (positive)", "Sqrt (mean)", id="no epsilon"),
        pytest.param("Add (mean, epsilon)", "Add (mean, computed)", id="an epsilon that is no constant"),
        pytest.param("8] normed)", "8] normed, float[batch, tokens, 1] inverse)", id="another consumer"),
    ],
)
def test_what_is_not_a_norm_stays(text: str, instead: str) -> None:
    assert text in NORM
    model = graph_from_text(NORM.replace(text, instead))
    before, names = run(model, INPUTS), operators(model)
    assert not fuse(model, 0).modified
    assert operators(model) == names
    check_same_results(before, run(model, INPUTS), atol=0)


def test_a_norm_in_float16_stays() -> None:
    """The operator would compute it in float32."""
    bits_of_epsilon = str(np.float16(0.01).view(np.int16))  # as ONNX text has float16
    model = graph_from_text(NORM.replace("float", "float16").replace("0.01", bits_of_epsilon))
    assert not fuse(model, 0).modified


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_norms_is_an_error(count: int) -> None:
    with pytest.raises(ir.passes.PostconditionError, match=f"1 subgraphs match SimplifiedLayerNormalization, expected {count}"):
        fuse(graph_from_text(NORM), count)
