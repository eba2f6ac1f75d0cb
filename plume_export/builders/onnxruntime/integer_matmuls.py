"""Matmuls of uint8 activations by int8 weights for ONNX Runtime's CPU provider, with one scale per row of the activation.

With a single scale for the whole tensor, as in DynamicQuantizeMatMul, an embedding would depend on the rest of its batch.
Source: operator MatMulIntegerToFloat of domain com.microsoft.
"""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...machine.software import ONNXRUNTIME_DOMAIN
from .compiled_weights import CompiledWeights
from .new_nodes import NewNodes

# Activations are uint8 with zero point 128, because ONNX Runtime's fastest matmuls are uint8 by int8.
_ZERO_POINT = np.array(128, np.uint8)
_LEVEL = np.array(1 / 127, np.float32)
# The rounding error is at most half a level, which 254 finer levels cover.
_FINE_LEVEL = np.array(1 / (127 * 254), np.float32)
_FINE_SHARE = np.array(1 / 254, np.float32)
_ROWS = -2
# Replaces the largest magnitude of a row of zeros.
_SMALLEST = np.array(1e-30, np.float32)


class Int8Weight(NamedTuple):
    """An int8 weight [in, out] and the float32 scale of each output channel."""

    integers: ir.Value
    scale: ir.Value


class _Uint8Rows(NamedTuple):
    """An activation as uint8 [..., rows, in], or [..., 2 rows, in] in two parts, and its row scales [..., rows, 1]."""

    integers: ir.Value
    scales: ir.Value


def replace_matmul(graph: ir.Graph, matmul: ir.Node, weight: Int8Weight, *, in_two_parts: bool) -> None:
    """Replace a MatMul by MatMulIntegerToFloat, applied to the activation before its Q/DQ, scaled by the maximum of each row.

    In two parts, each row is followed by its rounding error. The result is as exact as with 16-bit activations, at twice the
    arithmetic for the same bytes of weights.
    """
    nodes = new_nodes(graph)
    rows = _quantised_rows(nodes, _before_quantisation(matmul.inputs[0]), in_two_parts=in_two_parts)
    unscaled = _integer_matmul(nodes, rows.integers, weight)
    if in_two_parts:
        coarse, fine = nodes.op_multi_out("Split", [unscaled], {"axis": _ROWS, "num_outputs": 2}, num_outputs=2)
        share = nodes.constant("fine_share", _FINE_SHARE)
        unscaled = nodes.op("Add", [coarse, nodes.op("Mul", [fine, share])])
    _replace(graph, matmul, nodes, nodes.op("Mul", [unscaled, rows.scales]))


def replace_expert_matmul(graph: ir.Graph, matmul: ir.Node, experts: list[Int8Weight]) -> None:
    """Replace the MatMul with the stacked weights of the experts in the same way, expert by expert."""
    nodes, count = new_nodes(graph), len(experts)
    activation = _before_quantisation(matmul.inputs[0])
    rows = _quantised_rows(nodes, activation, in_two_parts=False)
    parts = [rows.integers] * count
    if not _is_shared_by_experts(activation):
        parts = list(nodes.op_multi_out("Split", [rows.integers], {"axis": 0, "num_outputs": count}, num_outputs=count))
    outputs = [_integer_matmul(nodes, part, weight) for part, weight in zip(parts, experts, strict=True)]
    stacked = nodes.op("Concat", outputs, {"axis": 0})
    _replace(graph, matmul, nodes, nodes.op("Mul", [stacked, rows.scales]))


def is_dequantised(value: ir.Value | None) -> bool:
    """Return True if a value is an int8 initializer followed by DequantizeLinear."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return False
    stored = node.inputs[0]
    return stored is not None and stored.is_initializer() and stored.dtype == ir.DataType.INT8


def stored_weight(value: ir.Value | None) -> Int8Weight:
    """Return the int8 initializer before a DequantizeLinear, and its scale."""
    node = None if value is None else value.producer()
    assert node is not None
    integers, scale = node.inputs[:2]
    assert integers is not None
    assert scale is not None
    return Int8Weight(integers, scale)


def is_stack(value: ir.Value | None) -> bool:
    """Return True for the stacked weights [experts, in, out] of the transition. Portable graphs store them in 16 bit."""
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 3


def quantised_stack(graph: ir.Graph, stack: ir.Value | None, weights: CompiledWeights) -> list[Int8Weight]:
    """Return the int8 weight of every expert: symmetric, with one scale per output channel, as in the linear layers."""
    assert stack is not None
    assert stack.name is not None
    assert stack.const_value is not None
    quantised = []
    for expert, weight in enumerate(stack.const_value.numpy()):  # [in, out]
        values = weight.astype(np.float32)
        scale = np.maximum(np.abs(values).max(0) / 127, _SMALLEST).astype(np.float32)
        integers = np.round(values / scale).astype(np.int8)
        tensors = {f"{stack.name}.{expert}": integers, f"{stack.name}.{expert}_scale": scale}
        pair = [ir.Value(name=name, const_value=weights.add(name, array)) for name, array in tensors.items()]
        for value in pair:
            graph.register_initializer(value)
        quantised.append(Int8Weight(*pair))
    return quantised


def new_nodes(graph: ir.Graph) -> NewNodes:
    """Return an empty tape. All matmuls of a graph share its constants."""
    return NewNodes(graph, "dynamic_quantisation")


def last_axis(nodes: NewNodes) -> ir.Value:
    """Return the axes input for an operator over the last axis."""
    return nodes.constant("last_axis", np.array([-1]))


def _integer_matmul(nodes: NewNodes, rows: ir.Value, weight: Int8Weight) -> ir.Value:
    level, zero_point = nodes.constant("level", _LEVEL), nodes.constant("zero", _ZERO_POINT)
    inputs = [rows, weight.integers, level, weight.scale, zero_point]
    return nodes.op("MatMulIntegerToFloat", inputs, domain=ONNXRUNTIME_DOMAIN)


def _replace(graph: ir.Graph, matmul: ir.Node, nodes: NewNodes, result: ir.Value) -> None:
    """Put the nodes in place of a matmul. The result takes over its output."""
    output = matmul.outputs[0]
    result.name, result.type, result.shape = output.name, output.type, output.shape
    graph.insert_before(matmul, nodes.nodes)
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)


def _quantised_rows(nodes: NewNodes, activation: ir.Value | None, *, in_two_parts: bool) -> _Uint8Rows:
    level, zero_point = nodes.constant("level", _LEVEL), nodes.constant("zero", _ZERO_POINT)
    largest = nodes.op("ReduceMax", [nodes.op("Abs", [activation]), last_axis(nodes)], {"keepdims": 1})
    scales = nodes.op("Max", [largest, nodes.constant("smallest", _SMALLEST)])  # [..., rows, 1]
    unit = nodes.op("Div", [activation, scales])
    coarse = nodes.op("QuantizeLinear", [unit, level, zero_point])
    if not in_two_parts:
        return _Uint8Rows(coarse, scales)
    rounding_error = nodes.op("Sub", [unit, nodes.op("DequantizeLinear", [coarse, level, zero_point])])
    fine = nodes.op("QuantizeLinear", [rounding_error, nodes.constant("fine_level", _FINE_LEVEL), zero_point])
    return _Uint8Rows(nodes.op("Concat", [coarse, fine], {"axis": _ROWS}), scales)


def _is_shared_by_experts(activation: ir.Value | None) -> bool:
    """Return True if all experts read one input [1, rows, in], which is unsqueezed; False for [experts, rows, in]."""
    node = None if activation is None else activation.producer()
    return node is not None and node.op_type == "Unsqueeze"


def _before_quantisation(value: ir.Value | None) -> ir.Value | None:
    """Walk back over DequantizeLinear and QuantizeLinear, because the range of this input is computed at run time."""
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        node = None if value is None else value.producer()
        if node is None or node.op_type != operator:
            break
        value = node.inputs[0]
    return value
