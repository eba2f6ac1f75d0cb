"""Matmuls of uint8 by int8: as exact as 8 or 16 bits allow, and a row that does not depend on the others."""

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from plume_export.builders.onnxruntime.integer_matmuls import is_dequantised, replace_matmul, stored_weight
from tests.onnx_text import graph_from_text, run, values

_RANDOM = np.random.default_rng(0)
_WEIGHT = _RANDOM.integers(-127, 128, (64, 16)).astype(np.int8)
_SCALE = _RANDOM.uniform(0.01, 0.02, 16).astype(np.float32)
MATMUL = f"""
matmul (float[1, rows, 64] x) => (float[1, rows, 16] y)
<int8[64, 16] weight = {values(_WEIGHT)}, float[16] scale = {values(_SCALE)}>
{{
    wide = DequantizeLinear <axis: int = 1> (weight, scale)
    y = MatMul (x, wide)
}}
"""


def _rewritten(*, in_two_parts: bool) -> ir.Model:
    model = graph_from_text(MATMUL)
    (matmul,) = (node for node in model.graph if node.op_type == "MatMul")
    assert is_dequantised(matmul.inputs[1])
    replace_matmul(model.graph, matmul, stored_weight(matmul.inputs[1]), in_two_parts=in_two_parts)
    RemoveUnusedNodesPass()(model)
    return model


def _matmul(activation: NDArray[np.float32], *, in_two_parts: bool) -> NDArray[np.float32]:
    (result,) = run(_rewritten(in_two_parts=in_two_parts), {"x": activation})
    return result


@pytest.mark.parametrize(("in_two_parts", "levels"), [(False, 127), (True, 127 * 254)])
def test_error_is_half_a_level_of_its_row(in_two_parts: bool, levels: int) -> None:
    activation = _RANDOM.normal(size=(1, 5, 64)).astype(np.float32)
    activation[0, 1] *= 1e4  # rows of very different magnitudes
    activation[0, 2] = 0
    activation[0, 3, 7] = 100  # and one with an outlier
    expected = activation.astype(np.float64) @ (_WEIGHT * _SCALE.astype(np.float64))
    error = np.abs(_matmul(activation, in_two_parts=in_two_parts) - expected)
    largest = np.abs(activation).max(-1, keepdims=True)
    worst = largest * 0.5 / levels * np.abs(_WEIGHT * _SCALE).sum(0) + 1e-6 * np.abs(expected)
    assert (error <= worst).all()
    # And not far better, which would mean that nothing was rounded: errors of either sign cancel to about a tenth.
    assert (error > worst / 100).mean() > 0.5


@pytest.mark.parametrize("in_two_parts", [False, True])
def test_row_does_not_depend_on_the_others(in_two_parts: bool) -> None:
    activation = _RANDOM.normal(size=(1, 4, 64)).astype(np.float32)
    alone = _matmul(activation[:, :1], in_two_parts=in_two_parts)
    activation[0, 3] *= 1e6
    together = _matmul(activation, in_two_parts=in_two_parts)[:, :1]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
