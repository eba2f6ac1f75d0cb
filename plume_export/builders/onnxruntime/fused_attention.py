"""Replace plain attention by ONNX Runtime's fused operators, so that memory grows linearly with the sequence.

The patterns are traces of `graphs.layers.attend`. The casts around the Softmax exist in 16-bit graphs only. Queries are scaled
before. Ensures: the same values, no score tensor. Source: operators MultiHeadAttention and GroupQueryAttention of domain
com.microsoft.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import ANY_VALUE, MatchResult, OrValue, RewriteRuleClassBase

from ...machine.software import ONNXRUNTIME_DOMAIN
from ...spec import DecoderSpec, VisionSpec


def attention_pattern(op: Any, queries: Any, keys: Any, values: Any, mask: Any = None) -> Any:
    """Return the attention of queries, keys and values [batch, heads, rows, head_dim], as [batch, rows, heads, head_dim].

    `mask`, if any, is True where a key is seen. Names `transposed_keys`, `masked_scores` and `attended` of values within.
    """
    scores = op.MatMul(queries, op.Transpose(keys, perm=[0, 1, 3, 2], _outputs=["transposed_keys"]))
    if mask is not None:
        scores = op.Where(mask, scores, ANY_VALUE, _outputs=["masked_scores"])
    weights = op.Softmax(OrValue([op.Cast(scores), scores]), axis=-1)
    attended = op.MatMul(OrValue([op.Cast(weights), weights]), values, _outputs=["attended"])
    return op.Transpose(attended, perm=[0, 2, 1, 3])


class VisionAttention(RewriteRuleClassBase):
    """Full attention, which becomes MultiHeadAttention."""

    def __init__(self, vision: VisionSpec) -> None:
        super().__init__()
        self._heads, self._head_dim = vision.heads, vision.head_dim

    def pattern(self, op: Any, queries: Any, keys: Any, values: Any) -> Any:
        return attention_pattern(op, queries, keys, values)

    def rewrite(self, op: Any, queries: ir.Value, keys: ir.Value, values: ir.Value, **_: ir.Value) -> Any:
        operands = [_heads_in_rows(op, value, self._heads * self._head_dim) for value in (queries, keys, values)]
        attended = op.MultiHeadAttention(*operands, num_heads=self._heads, scale=1.0, _domain=ONNXRUNTIME_DOMAIN)
        return op.Reshape(attended, _integers(op, 0, 0, self._heads, self._head_dim))


class CausalAttention(RewriteRuleClassBase):
    """Causal attention with keys and values repeated for their query heads, which becomes GroupQueryAttention without that.

    The attention of prefill's last layer is not causal, because it has queries for two rows per prompt only.
    """

    def __init__(self, decoder: DecoderSpec) -> None:
        super().__init__()
        self._decoder = decoder

    def setup(self) -> None:
        self._lengths: tuple[ir.Value, ir.Value] | None = None

    def pattern(self, op: Any, queries: Any, keys: Any, values: Any, mask: Any) -> Any:
        return attention_pattern(op, queries, _repeated_heads(op, keys), _repeated_heads(op, values), mask)

    def check(self, op: Any, mask: ir.Value, **_: ir.Value) -> MatchResult:
        return MatchResult() if _is_causal(mask) else MatchResult().fail("the mask is not causal", mask)

    def rewrite(self, op: Any, queries: ir.Value, keys: ir.Value, values: ir.Value, **_: ir.Value) -> Any:
        decoder = self._decoder
        if self._lengths is None:
            self._lengths = _sequence_lengths(op, queries)
        flat_queries = _heads_in_rows(op, queries, decoder.query_heads * decoder.head_dim)
        flat = [_heads_in_rows(op, value, decoder.kv_heads * decoder.head_dim) for value in (keys, values)]
        heads = {"num_heads": decoder.query_heads, "kv_num_heads": decoder.kv_heads, "scale": 1.0}
        operands = (flat_queries, *flat, None, None, *self._lengths)
        attended, *_ = op.GroupQueryAttention(*operands, **heads, _domain=ONNXRUNTIME_DOMAIN, _outputs=3)
        return op.Reshape(attended, _integers(op, 0, 0, decoder.query_heads, decoder.head_dim))


def _repeated_heads(op: Any, value: Any) -> Any:
    """Match the repetition of key/value heads [batch, kv_heads, rows, head_dim] for the query heads of their group."""
    return op.Reshape(op.Expand(op.Unsqueeze(value, [2]), ANY_VALUE), ANY_VALUE)


def _is_causal(mask: ir.Value) -> bool:
    """Return True for indices <= indices[:, None] of a Range."""
    node = mask.producer()
    if node is None or node.op_type != "LessOrEqual":
        return False
    keys, queries = node.inputs
    indices, column = (None if value is None else value.producer() for value in (keys, queries))
    if indices is None or column is None or (indices.op_type, column.op_type) != ("Range", "Unsqueeze"):
        return False
    source, axes = column.inputs
    axis = None if axes is None else ir.convenience.get_const_tensor(axes)
    return source is keys and axis is not None and axis.numpy().tolist() in ([1], [-1])


def _heads_in_rows(op: Any, value: ir.Value, width: int) -> Any:
    """Return [batch, heads, rows, head_dim] as [batch, rows, heads * head_dim]."""
    return op.Reshape(op.Transpose(value, perm=[0, 2, 1, 3]), _integers(op, 0, 0, width))


def _sequence_lengths(op: Any, queries: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the operator's seqlens_k [batch] (length - 1) and total_sequence_length. Padding counts as tokens."""
    assert queries.graph is not None
    input_ids = next(value for value in queries.graph.inputs if value.name == "input_ids")
    tokens, batch = op.Shape(input_ids, start=1, end=2), op.Shape(input_ids, start=0, end=1)
    last_of_each = op.Expand(op.Sub(tokens, _integers(op, 1)), batch)
    int32 = ir.DataType.INT32.value
    return op.Cast(last_of_each, to=int32), op.Cast(tokens, to=int32)


def _integers(op: Any, *values: int) -> Any:
    return op.Constant(value=ir.tensor(np.array(values)))
