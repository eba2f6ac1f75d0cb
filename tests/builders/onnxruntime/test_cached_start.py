"""A small prefill with the start of prompts cached: the same results for any batch, with fewer tokens computed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from plume_export.builders.onnxruntime.cached_start import CACHED_TOKENS, PromptStart, StartAfterCachedTokens
from plume_export.runtime.backend import Array
from tests.onnx_text import check_same_results, graph_from_text, run, values

Batch = dict[str, Array]
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Decoder:
    layers: int = 2
    query_heads: int = 2
    kv_heads: int = 1
    head_dim: int = 8


def projection(name: str, *shape: int) -> str:
    return f"float[{', '.join(map(str, shape))}] {name} = {values(RANDOM.normal(size=shape, scale=0.5).astype(np.float32))}"


# Layer 0 has fused attention; layer 1 has it for two rows, the last token's and the anchor's.
PREFILL = f"""
prefill (int64[batch, tokens] input_ids, float[visual, 16] visual_embeddings, int64[batch, tokens] visual_index,
    int64[3, batch, tokens] position_ids, int64[batch] token_count, int64[batch] anchor_index)
    => (float[batch, 16] state, float[batch, 16] anchor, float[batch, 1, tokens, 8] prefix_keys_0,
    float[batch, 1, tokens, 8] prefix_values_0, float[batch, 1, tokens, 8] prefix_keys_1,
    float[batch, 1, tokens, 8] prefix_values_1)
<{projection("table", 10, 16)}, {projection("key_0", 16, 8)}, {projection("value_0", 16, 8)}, {projection("key_1", 16, 8)},
 {projection("value_1", 16, 8)}, int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{0}}, int64[1] second = {{1}},
 int64[1] third = {{2}}, int64[1] last = {{-1}}, int64[2] around_rows = {{1, 3}}, int64[4] by_head = {{0, 0, -1, 8}},
 int64[3] joined = {{0, 0, -1}}, int64[5] groups = {{1, 1, 2, 1, 1}}, int64[4] query_heads = {{0, 2, -1, 8}},
 float masked = {{-65504}}>
{{
    index = Max (visual_index, zero)
    pictures = Gather <axis: int = 0> (visual_embeddings, index)
    words = Gather <axis: int = 0> (table, input_ids)
    is_visual = GreaterOrEqual (visual_index, zero)
    is_visual_row = Unsqueeze (is_visual, last)
    embeddings = Where (is_visual_row, pictures, words)
    all_positions = Cast <to: int = 1> (position_ids)
    positions = ReduceSum <keepdims: int = 0> (all_positions, first)
    angle = Unsqueeze (positions, last)
    turned = Sin (angle)
    hidden = Add (embeddings, turned)

    keys_0 = MatMul (hidden, key_0)
    keys_0_by_head = Reshape (keys_0, by_head)
    prefix_keys_0 = Transpose <perm: ints = [0, 2, 1, 3]> (keys_0_by_head)
    values_0 = MatMul (hidden, value_0)
    values_0_by_head = Reshape (values_0, by_head)
    prefix_values_0 = Transpose <perm: ints = [0, 2, 1, 3]> (values_0_by_head)
    size = Shape <start: int = 1, end: int = 2> (input_ids)
    batch_size = Shape <start: int = 0, end: int = 1> (input_ids)
    last_index = Sub (size, one)
    last_indices = Expand (last_index, batch_size)
    lengths = Cast <to: int = 6> (last_indices)
    total = Cast <to: int = 6> (size)
    attended_0, unused_keys, unused_values = com.microsoft.GroupQueryAttention
        <num_heads: int = 2, kv_num_heads: int = 1, scale: float = 1.0> (hidden, keys_0, values_0, , , lengths, total)
    hidden_1 = Add (hidden, attended_0)

    keys_1 = MatMul (hidden_1, key_1)
    keys_1_by_head = Reshape (keys_1, by_head)
    prefix_keys_1 = Transpose <perm: ints = [0, 2, 1, 3]> (keys_1_by_head)
    values_1 = MatMul (hidden_1, value_1)
    values_1_by_head = Reshape (values_1, by_head)
    prefix_values_1 = Transpose <perm: ints = [0, 2, 1, 3]> (values_1_by_head)
    last_token = Sub (token_count, one)
    last_token_row = Unsqueeze (last_token, last)
    anchor_row = Unsqueeze (anchor_index, last)
    rows = Concat <axis: int = 1> (last_token_row, anchor_row)
    row_indices = Unsqueeze (rows, last)
    picked = GatherND <batch_dims: int = 1> (hidden_1, row_indices)
    picked_by_head = Reshape (picked, by_head)
    queries = Transpose <perm: ints = [0, 2, 1, 3]> (picked_by_head)

    key_groups = Unsqueeze (prefix_keys_1, third)
    repeated_keys = Expand (key_groups, groups)
    all_keys = Reshape (repeated_keys, query_heads)
    value_groups = Unsqueeze (prefix_values_1, third)
    repeated_values = Expand (value_groups, groups)
    all_values = Reshape (repeated_values, query_heads)
    token_total = Squeeze (size)
    indices = Range (zero, token_total, one)
    rows_of_heads = Unsqueeze (rows, around_rows)
    mask = LessOrEqual (indices, rows_of_heads)
    transposed = Transpose <perm: ints = [0, 1, 3, 2]> (all_keys)
    scores = MatMul (queries, transposed)
    seen = Where (mask, scores, masked)
    weights = Softmax <axis: int = -1> (seen)
    by_query_head = MatMul (weights, all_values)
    by_row = Transpose <perm: ints = [0, 2, 1, 3]> (by_query_head)
    attended_1 = Reshape (by_row, joined)
    states = Add (picked, attended_1)
    state_row, anchor_state_row = Split <axis: int = 1, num_outputs: int = 2> (states)
    state = Squeeze (state_row, second)
    anchor = Squeeze (anchor_state_row, second)
}}
"""
# Six tokens, of which the third and fourth are visual.
START_IDS, START_VISUAL = np.array([[1, 2, 0, 0, 3, 4]]), np.array([[-1, -1, 0, 1, -1, -1]])
BLANK = RANDOM.normal(size=(2, 16)).astype(np.float32)


def positions(batch: int, tokens: int) -> Array:
    return np.broadcast_to(np.arange(tokens), (3, batch, tokens)).copy()


def start_inputs() -> Batch:
    return {
        "input_ids": START_IDS,
        "visual_embeddings": BLANK,
        "visual_index": START_VISUAL,
        "position_ids": positions(1, 6),
        "token_count": np.array([6]),
        "anchor_index": np.array([5]),
    }


def two_prompts() -> Batch:
    """Return prompts of 9 and 10 tokens with the start, padded."""
    ids = np.concatenate([START_IDS.repeat(2, 0), RANDOM.integers(0, 10, (2, 4))], 1)
    visual_index = np.concatenate([START_VISUAL.repeat(2, 0), np.full((2, 4), -1)], 1)
    counts = {"token_count": np.array([10, 9]), "anchor_index": np.array([8, 7])}
    rest = {"visual_embeddings": BLANK.copy(), "visual_index": visual_index, "position_ids": positions(2, 10)}
    return {"input_ids": ids} | rest | counts


def cached() -> ir.Model:
    """Return the rewritten graph, with the number of cached tokens as another output."""
    plain = graph_from_text(PREFILL)
    names = [str(value.name) for value in plain.graph.outputs]
    cache = dict(zip(names[2:], run(plain, start_inputs())[2:], strict=True))
    model = StartAfterCachedTokens(PromptStart(start_inputs(), cache), Decoder())(plain).model
    model.graph.outputs.append(next(value for node in model.graph for value in node.outputs if value.name == CACHED_TOKENS))
    return model


def compare(batch: Batch) -> int:
    """Check that the graph computes the same with a cached start. Return the number of tokens taken from the cache."""
    *results, count = run(cached(), batch)
    check_same_results(run(graph_from_text(PREFILL), batch), results, atol=1e-5)
    return int(count.item())


def test_prompts_with_the_start() -> None:
    assert compare(two_prompts()) == 6


def another_first_token(batch: Batch) -> None:
    batch["input_ids"][0, 0] += 1


def another_token(batch: Batch) -> None:
    batch["input_ids"][-1, 4] += 1


def another_position(batch: Batch) -> None:
    batch["position_ids"][2, 0, 1] += 1


def a_picture_in_place_of_a_text(batch: Batch) -> None:
    batch["visual_index"][0, 1] = 0


def another_picture(batch: Batch) -> None:
    batch["visual_embeddings"][1, -1] += 1


def an_early_anchor(batch: Batch) -> None:
    batch["anchor_index"][0] = 4


def the_first_token_as_anchor(batch: Batch) -> None:
    batch["anchor_index"][1] = 0


def a_short_prompt(batch: Batch) -> None:
    batch["token_count"][1] = 4
    batch["anchor_index"][1] = 3


def a_batch_shorter_than_the_start(batch: Batch) -> None:
    for name in ("input_ids", "visual_index", "position_ids"):
        batch[name] = batch[name][..., :5]
    batch |= {"token_count": np.array([5, 5]), "anchor_index": np.array([4, 4])}


def one_token(batch: Batch) -> None:
    for name in ("input_ids", "visual_index", "position_ids"):
        batch[name] = batch[name][..., :1]
    batch |= {"token_count": np.array([1, 1]), "anchor_index": np.array([0, 0])}


def other_rows_of_the_same_embeddings(batch: Batch) -> None:
    index = batch["visual_index"]
    batch["visual_index"] = np.where(index >= 0, 3 - index, -1)
    batch["visual_embeddings"] = np.concatenate([BLANK[::-1]] * 2)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (another_first_token, 0),
        (another_token, 4),
        (another_position, 1),
        (a_picture_in_place_of_a_text, 1),
        (another_picture, 3),
        (an_early_anchor, 4),
        (the_first_token_as_anchor, 0),
        (a_short_prompt, 3),
        (a_batch_shorter_than_the_start, 4),
        (one_token, 0),
        (other_rows_of_the_same_embeddings, 6),
    ],
)
def test_only_what_agrees_is_taken_from_the_cache(change: Callable[[Batch], None], count: int) -> None:
    batch = two_prompts()
    change(batch)
    assert compare(batch) == count


def test_a_picture_that_is_not_a_number_is_not_in_the_cache() -> None:
    batch = two_prompts()
    batch["visual_embeddings"][1, 0] = np.nan  # nothing to compare: it poisons both
    *_, count = run(cached(), batch)
    assert count.item() == 3


def test_shapes_within_the_graph_are_not_those_of_whole_prompts() -> None:
    """ONNX Runtime plans which values share a buffer by the names of their axes."""
    graph = cached().graph
    assert all(value.shape is None for node in graph for value in node.outputs if not value.is_graph_output())


def test_nothing_is_computed_in_vain() -> None:
    for node in cached().graph:
        assert any(value.uses() or value.is_graph_output() for value in node.outputs), node.op_type


@pytest.mark.parametrize("layers", [1, 3])
def test_another_number_of_fused_attentions_is_an_error(layers: int) -> None:
    start = PromptStart(start_inputs(), {})
    with pytest.raises(ir.passes.PreconditionError, match=f"1 attentions are fused, expected {layers - 1}"):
        StartAfterCachedTokens(start, Decoder(layers))(graph_from_text(PREFILL))
