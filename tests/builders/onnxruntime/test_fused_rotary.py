"""Rotary embeddings become one operator with one table, for angles of the batch's own and for angles that all frames share."""

import numpy as np
import onnx_ir as ir
import pytest

from plume_export.builders.onnxruntime.fused_rotary import RotaryEmbedding
from plume_export.builders.onnxruntime.fusion import Fuse
from tests.onnx_text import check_same_results, graph_from_text, operators, run

ROTARY = """
rotary (float[batch, 2, rows, 8] x, float[batch, 2, rows, 8] y, float[angles, 1, rows, 4] cos, float[angles, 1, rows, 4] sin)
    => (float[batch, 2, rows, 8] rotated, float[batch, 2, rows, 8] rotated_y)
{
    first, second = Split <axis: int = 3, num_outputs: int = 2> (x)
    first_cos = Mul (first, cos)
    second_sin = Mul (second, sin)
    left = Sub (first_cos, second_sin)
    second_cos = Mul (second, cos)
    first_sin = Mul (first, sin)
    right = Add (second_cos, first_sin)
    rotated = Concat <axis: int = -1> (left, right)

    first_y, second_y = Split <axis: int = 3, num_outputs: int = 2> (y)
    first_y_cos = Mul (first_y, cos)
    second_y_sin = Mul (second_y, sin)
    left_y = Sub (first_y_cos, second_y_sin)
    second_y_cos = Mul (second_y, cos)
    first_y_sin = Mul (first_y, sin)
    right_y = Add (second_y_cos, first_y_sin)
    rotated_y = Concat <axis: int = -1> (left_y, right_y)
}
"""


def inputs(angles: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    queries = {name: random.normal(size=(2, 2, 3, 8)).astype(np.float32) for name in ("x", "y")}
    radians = random.normal(size=(angles, 1, 3, 4)).astype(np.float32)
    return queries | {"cos": np.cos(radians), "sin": np.sin(radians)}


def fuse(model: ir.Model, count: int) -> ir.passes.PassResult:
    return Fuse("RotaryEmbedding", RotaryEmbedding.rule(), count)(model)


@pytest.mark.parametrize("angles", [pytest.param(2, id="of each prompt"), pytest.param(1, id="shared by all frames")])
def test_rotations_share_one_table(angles: int) -> None:
    model = graph_from_text(ROTARY)
    before = run(model, inputs(angles))
    assert fuse(model, 2).modified
    assert "Sub" not in operators(model)
    rotations = [node for node in model.graph if node.op_type == "RotaryEmbedding"]
    assert [node.outputs[0].name for node in rotations] == ["rotated", "rotated_y"]
    assert rotations[0].inputs[1:] == rotations[1].inputs[1:]
    check_same_results(before, run(model, inputs(angles)))


def test_a_rule_makes_a_table_for_each_graph() -> None:
    rotary = Fuse("RotaryEmbedding", RotaryEmbedding.rule(), 2)
    for model in (graph_from_text(ROTARY), graph_from_text(ROTARY)):
        before = run(model, inputs(2))
        rotary(model)
        check_same_results(before, run(model, inputs(2)))


@pytest.mark.parametrize(
    ("text", "instead", "count"),
    [
        pytest.param("Sub (first_cos, second_sin)", "Sub (second_sin, first_cos)", 1, id="the other direction"),
        pytest.param("Add (second_cos, first_sin)", "Add (second_cos, second_sin)", 1, id="another product"),
        pytest.param("Mul (second, sin)", "Mul (second, cos)", 1, id="another angle"),
        pytest.param("Concat <axis: int = -1> (left, right)", "Concat <axis: int = -1> (right, left)", 1, id="another order"),
        pytest.param("axis: int = 3, num_outputs: int = 2> (x)", "axis: int = 2, num_outputs: int = 2> (x)", 1, id="rows"),
        pytest.param("rotated_y)\n", "rotated_y, float[batch, 2, rows, 4] left)\n", 1, id="another consumer"),
    ],
)
def test_what_is_not_a_rotation_stays(text: str, instead: str, count: int) -> None:
    assert text in ROTARY
    model = graph_from_text(ROTARY.replace(text, instead))
    assert fuse(model, count).modified
    assert operators(model).count("Sub") == 1
    if "axis: int = 2" not in instead:  # halves of 3 rows cannot be rotated
        before = run(graph_from_text(ROTARY.replace(text, instead)), inputs(2))
        check_same_results(before, run(model, inputs(2)))


def test_rotations_in_float16_stay() -> None:
    assert not fuse(graph_from_text(ROTARY.replace("float", "float16")), 0).modified


def test_other_angles_are_an_error() -> None:
    text = ROTARY.replace("Mul (first_y, cos)", "Mul (first_y, sin)").replace("Mul (second_y, sin)", "Mul (second_y, cos)")
    text = text.replace("Mul (second_y, cos)\n    first_y_sin", "Mul (second_y, sin)\n    first_y_sin")
    text = text.replace("first_y_sin = Mul (first_y, sin)", "first_y_sin = Mul (first_y, cos)")
    with pytest.raises(ir.passes.PostconditionError, match="1 subgraphs match RotaryEmbedding, expected 2"):
        fuse(graph_from_text(text), 2)
