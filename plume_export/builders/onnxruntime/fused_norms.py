"""Replace the decoder's RMS norms by ONNX Runtime's operator: one pass over the hidden state instead of seven.

The pattern is the trace of `graphs.layers.RMSNorm`. Source: operator SimplifiedLayerNormalization, which ONNX Runtime adds to
ONNX's own domain.
"""

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult, RewriteRuleClassBase


class RMSNorm(RewriteRuleClassBase):
    """weight * hidden / sqrt(mean(hidden^2) + epsilon) over the last axis, in float32."""

    def pattern(self, op: Any, hidden: Any, weight: Any, epsilon: Any) -> Any:
        mean_square = op.ReduceMean(op.Mul(hidden, hidden), [-1], keepdims=1)
        inverse_root = op.Reciprocal(op.Sqrt(op.Add(mean_square, epsilon)))
        return op.Mul(weight, op.Mul(hidden, inverse_root))

    def check(self, op: Any, hidden: ir.Value, weight: ir.Value, epsilon: ir.Value) -> MatchResult:
        number = ir.convenience.get_const_tensor(epsilon)
        if number is None or number.size != 1:
            return MatchResult().fail("epsilon is not one constant", epsilon)
        if not hidden.dtype == weight.dtype == ir.DataType.FLOAT:
            return MatchResult().fail("not in float32", hidden)
        return MatchResult()

    def rewrite(self, op: Any, hidden: ir.Value, weight: ir.Value, epsilon: ir.Value) -> Any:
        number = ir.convenience.get_const_tensor(epsilon)
        assert number is not None
        attributes = {"axis": -1, "epsilon": float(number.numpy().item()), "stash_type": ir.DataType.FLOAT.value}
        return op.SimplifiedLayerNormalization(hidden, weight, **attributes)
