"""Replace rotary embeddings by ONNX Runtime's operator: one pass over queries or keys instead of eight.

The pattern is the trace of `graphs.layers.Rotary.rotate`. The graph still computes the angles, of M-RoPE or of the patches.
Their cosines and sines become the operator's table, in which every row of the batch has its own entries. Source: operator
RotaryEmbedding of domain com.microsoft.
"""

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult, RewriteRuleClassBase

from ...machine.software import ONNXRUNTIME_DOMAIN


class _Table(NamedTuple):
    """The operator's position_ids [batch, rows], cos_cache and sin_cache [batch * rows, head_dim / 2]."""

    positions: ir.Value
    cos: ir.Value
    sin: ir.Value


class RotaryEmbedding(RewriteRuleClassBase):
    """[first * cos - second * sin, second * cos + first * sin] for the halves of x [batch, heads, rows, head_dim], float32.

    All rotations of a graph must have the same angles: they share one table, made for the first.
    """

    def setup(self) -> None:
        self._angles: tuple[ir.Value, ir.Value] | None = None
        self._table: _Table | None = None

    def pattern(self, op: Any, x: Any, cos: Any, sin: Any, split_axis: Any, concat_axis: Any) -> Any:
        first, second = op.Split(x, axis=split_axis, num_outputs=2, _outputs=2)
        rotated_first = op.Sub(op.Mul(first, cos), op.Mul(second, sin))
        rotated_second = op.Add(op.Mul(second, cos), op.Mul(first, sin))
        return op.Concat(rotated_first, rotated_second, axis=concat_axis)

    def check(
        self, op: Any, x: ir.Value, cos: ir.Value, sin: ir.Value, split_axis: ir.Attr, concat_axis: ir.Attr
    ) -> MatchResult:
        if not {split_axis.as_int(), concat_axis.as_int()} <= {-1, 3}:
            return MatchResult().fail("not along head_dim", x)
        if x.dtype != ir.DataType.FLOAT:
            return MatchResult().fail("not in float32", x)
        if self._angles not in (None, (cos, sin)):
            return MatchResult().fail("other angles than those of the first rotation", cos)
        return MatchResult()

    def rewrite(self, op: Any, x: ir.Value, cos: ir.Value, sin: ir.Value, **_: ir.Attr) -> Any:
        if self._table is None:
            self._angles, self._table = (cos, sin), _table(op, x, cos, sin)
        return op.RotaryEmbedding(x, *self._table, _domain=ONNXRUNTIME_DOMAIN)


def _table(op: Any, x: ir.Value, cos: ir.Value, sin: ir.Value) -> _Table:
    """Return the operator's table.

    Angles [batch, 1, rows, head_dim / 2] may lack the batch axis if they are the same for the whole batch.
    """
    one, zero, everything, axis = (op.Constant(value=ir.tensor(np.array(value))) for value in (1, 0, [-1], [1]))
    batch, rows, half = op.Shape(x, start=0, end=1), op.Shape(x, start=2, end=3), op.Shape(cos, start=-1)
    whole = op.Concat(batch, axis, rows, half, axis=0)
    flat = op.Concat(everything, half, axis=0)
    caches = [op.Reshape(op.Expand(angles, whole), flat) for angles in (cos, sin)]
    batch_and_rows = op.Concat(batch, rows, axis=0)
    count = op.ReduceProd(batch_and_rows, keepdims=0)
    positions = op.Reshape(op.Range(zero, count, one), batch_and_rows)
    return _Table(positions, *caches)
