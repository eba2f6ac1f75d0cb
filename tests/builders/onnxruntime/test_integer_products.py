"""Products of uint8 by int8: as exact as 8 or 16 bits allow, and a row that does not depend on the others."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from plume_export.builders.onnxruntime.integer_products import is_dequantised, replace_product, stored_weight
from plume_export.machine.software import ONNXRUNTIME_DOMAIN
from plume_export.runtime.onnxruntime_cpu import ask_for_exact_products

_RANDOM = np.random.default_rng(0)
_WEIGHT = _RANDOM.integers(-127, 128, (64, 16)).astype(np.int8)
_SCALE = _RANDOM.uniform(0.01, 0.02, 16).astype(np.float32)


def _product(activation: NDArray[np.float32], *, in_two_parts: bool) -> NDArray[np.float32]:
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["wide"], axis=1),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "rows", w]) for n, w in (("x", 64), ("y", 16))]
    constants = [numpy_helper.from_array(_WEIGHT, "weight"), numpy_helper.from_array(_SCALE, "scale")]
    built = helper.make_graph(nodes, "product", values[:1], values[1:], constants)
    graph = ir.from_proto(helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    (product,) = (node for node in graph.graph if node.op_type == "MatMul")
    assert is_dequantised(product.inputs[1])
    replace_product(graph, product, stored_weight(product.inputs[1]), in_two_parts=in_two_parts)
    RemoveUnusedNodesPass()(graph)  # as quantise_dynamically does
    graph.opset_imports[ONNXRUNTIME_DOMAIN] = 1
    model: onnx.ModelProto = ir.to_proto(graph)
    options = onnxruntime.SessionOptions()
    ask_for_exact_products(options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": activation})[0]
    return result


@pytest.mark.parametrize(("in_two_parts", "levels"), [(False, 127), (True, 127 * 254)])
def test_error_is_half_a_level_of_its_row(in_two_parts: bool, levels: int) -> None:
    activation = _RANDOM.normal(size=(1, 5, 64)).astype(np.float32)
    activation[0, 1] *= 1e4  # rows of very different magnitudes
    activation[0, 2] = 0
    activation[0, 3, 7] = 100  # and one with an outlier
    expected = activation.astype(np.float64) @ (_WEIGHT * _SCALE.astype(np.float64))
    error = np.abs(_product(activation, in_two_parts=in_two_parts) - expected)
    largest = np.abs(activation).max(-1, keepdims=True)
    worst = largest * 0.5 / levels * np.abs(_WEIGHT * _SCALE).sum(0) + 1e-6 * np.abs(expected)
    assert (error <= worst).all()
    # And not far better, which would mean that nothing was rounded: errors of either sign cancel to about a tenth.
    assert (error > worst / 100).mean() > 0.5


@pytest.mark.parametrize("in_two_parts", [False, True])
def test_row_does_not_depend_on_the_others(in_two_parts: bool) -> None:
    activation = _RANDOM.normal(size=(1, 4, 64)).astype(np.float32)
    alone = _product(activation[:, :1], in_two_parts=in_two_parts)
    activation[0, 3] *= 1e6
    together = _product(activation, in_two_parts=in_two_parts)[:, :1]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
