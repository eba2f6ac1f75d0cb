"""Plain attention becomes one operator; another mask, another consumer or another layout stays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from plume_export.builders.onnxruntime.fused_attention import CausalAttention, VisionAttention
from plume_export.builders.onnxruntime.fusion import Fuse
from tests.onnx_text import check_same_results, graph_from_text, operators, run


@dataclass(frozen=True)
class Heads:
    """What the rules read of a model: 4 heads of 8, of which 2 have keys and values in the decoder."""

    heads: int = 4
    query_heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8


VISION = """
vision (float[frames, 4, patches, 8] queries, float[frames, 4, patches, 8] keys, float[frames, 4, patches, 8] values)
    => (float[frames, rows, columns, 8] attended)
{
    transposed = Transpose <perm: ints = [0, 1, 3, 2]> (keys)
    scores = MatMul (queries, transposed)
    weights = Softmax <axis: int = -1> (scores)
    by_head = MatMul (weights, values)
    attended = Transpose <perm: ints = [0, 2, 1, 3]> (by_head)
}
"""
PREFILL = """
prefill (int64[batch, tokens] input_ids, float[batch, 4, tokens, 8] queries, float[batch, 2, tokens, 8] keys,
    float[batch, 2, tokens, 8] values, bool[tokens, tokens] other_mask)
    => (float[batch, tokens, 4, 8] attended)
<int64 zero = {0}, int64 one = {1}, int64[1] column = {1}, int64[1] head = {2}, float masked = {-65504},
 int64[5] groups = {1, 1, 2, 1, 1}, int64[5] tiles = {1, 2, 1, 1, 1}, int64[4] heads = {0, 4, -1, 8}>
{
    size = Shape <start: int = 1> (input_ids)
    tokens = Squeeze (size)
    indices = Range (zero, tokens, one)
    rows = Unsqueeze (indices, column)
    mask = LessOrEqual (indices, rows)

    key_groups = Unsqueeze (keys, head)
    repeated_keys = Expand (key_groups, groups)
    all_keys = Reshape (repeated_keys, heads)
    value_groups = Unsqueeze (values, head)
    repeated_values = Expand (value_groups, groups)
    all_values = Reshape (repeated_values, heads)

    transposed = Transpose <perm: ints = [0, 1, 3, 2]> (all_keys)
    scores = MatMul (queries, transposed)
    seen = Where (mask, scores, masked)
    weights = Softmax <axis: int = -1> (seen)
    by_head = MatMul (weights, all_values)
    attended = Transpose <perm: ints = [0, 2, 1, 3]> (by_head)
}
"""


REPEATED_KEYS = """Unsqueeze (keys, head)
    repeated_keys = Expand (key_groups, groups)"""


def vision_inputs(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=(2, 4, 8, 8)).astype(dtype) for name in ("queries", "keys", "values")}


def prefill_inputs() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"queries": (2, 4, 6, 8), "keys": (2, 2, 6, 8), "values": (2, 2, 6, 8)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return arrays | {"input_ids": np.zeros((2, 6), np.int64), "other_mask": np.ones((6, 6), np.bool_)}


def fuse_vision(model: ir.Model, count: int) -> ir.passes.PassResult:
    return Fuse("MultiHeadAttention", VisionAttention.rule(Heads()), count)(model)


def fuse_prefill(model: ir.Model, count: int) -> ir.passes.PassResult:
    return Fuse("GroupQueryAttention", CausalAttention.rule(Heads()), count)(model)


def with_casts(text: str, scores: str) -> str:
    """Return a float16 graph whose softmax is in float32, as graphs are exported."""
    text = text.replace("float[", "float16[").replace("float masked = {-65504}", "float16 masked = {64511}")
    text = text.replace(f"Softmax <axis: int = -1> ({scores})", "Softmax <axis: int = -1> (wide)")
    text = text.replace("    weights = ", f"    wide = Cast <to: int = 1> ({scores})\n    weights = ")
    return text.replace(
        "    by_head = MatMul (weights", "    narrow = Cast <to: int = 10> (weights)\n    by_head = MatMul (narrow"
    )


def test_attention_within_frames() -> None:
    model = graph_from_text(VISION)
    before = run(model, vision_inputs())
    assert fuse_vision(model, 1).modified
    assert "Softmax" not in operators(model)
    check_same_results(before, run(model, vision_inputs()))


def test_causal_attention_on_the_heads_that_have_keys() -> None:
    model = graph_from_text(PREFILL)
    before = run(model, prefill_inputs())
    assert fuse_prefill(model, 1).modified
    assert not {"Softmax", "Where", "Expand"} & set(operators(model)[-12:])
    (fused,) = (node for node in model.graph if node.op_type == "GroupQueryAttention")
    assert fused.attributes["kv_num_heads"].as_int() == 2
    check_same_results(before, run(model, prefill_inputs()))


def test_a_softmax_between_casts() -> None:
    vision, prefill = graph_from_text(with_casts(VISION, "scores")), graph_from_text(with_casts(PREFILL, "seen"))
    inputs = vision_inputs(np.float16)
    before = run(vision, inputs)
    assert fuse_vision(vision, 1).modified
    assert "Cast" not in operators(vision)
    check_same_results(before, run(vision, inputs), atol=2e-3)
    assert fuse_prefill(prefill, 1).modified
    assert "Softmax" not in operators(prefill)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("axis: int = -1", "axis: int = -2", id="another axis"),
        pytest.param("8] attended)", "8] attended, float[frames, 4, patches, patches] weights)", id="another consumer"),
        pytest.param("[0, 2, 1, 3]", "[0, 1, 2, 3]", id="another layout"),
        pytest.param("[0, 1, 3, 2]", "[0, 1, 2, 3]", id="keys that are not transposed"),
    ],
)
def test_what_is_not_attention_of_vision_stays(text: str, instead: str) -> None:
    assert text in VISION
    model = graph_from_text(VISION.replace(text, instead))
    before, names = run(model, vision_inputs()), operators(model)
    assert not fuse_vision(model, 0).modified
    assert operators(model) == names
    check_same_results(before, run(model, vision_inputs()), atol=0)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("Where (mask", "Where (other_mask", id="another mask"),
        pytest.param("LessOrEqual (indices, rows)", "LessOrEqual (rows, indices)", id="the future is seen"),
        pytest.param("column = {1}", "column = {0}", id="everything is seen"),
        pytest.param("8] attended)", "8] attended, float[batch, 4, tokens, 8] all_keys)", id="another consumer"),
        pytest.param("axis: int = -1", "axis: int = 2", id="another axis"),
        pytest.param(REPEATED_KEYS, REPEATED_KEYS.replace("head)", "column)").replace("groups)", "tiles)"), id="tiled heads"),
    ],
)
def test_what_is_not_causal_attention_stays(text: str, instead: str) -> None:
    assert text in PREFILL
    model = graph_from_text(PREFILL.replace(text, instead))
    before, names = run(model, prefill_inputs()), operators(model)
    assert not fuse_prefill(model, 0).modified
    assert operators(model) == names
    check_same_results(before, run(model, prefill_inputs()), atol=0)


def test_attention_that_is_missing_is_an_error() -> None:
    with pytest.raises(ir.passes.PostconditionError, match="0 subgraphs match GroupQueryAttention, expected 1"):
        fuse_prefill(graph_from_text(PREFILL.replace("Where (mask", "Where (other_mask")), 1)
