"""Matmuls of uint8 by int8 for ONNX Runtime's CPU provider, with one scale per row of the activation.

With a single scale for the whole tensor, as in DynamicQuantizeMatMul, an embedding would depend on the rest of its batch.
Source: operator MatMulIntegerToFloat of domain com.microsoft.
"""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...machine.software import ONNXRUNTIME_DOMAIN
from .graph_edits import AddedWeights, NewNodes

# Activations are uint8 with zero point 128, because ONNX Runtime's fastest matmuls are uint8 by int8.
_ZERO = np.array(128, np.uint8)
_LEVEL = np.array(1 / 127, np.float32)
# The rounding error is at most half a level, which 254 finer levels cover.
_FINE_LEVEL = np.array(1 / (127 * 254), np.float32)
_FINE_SHARE = np.array(1 / 254, np.float32)
_ROWS = -2
# Replaces the largest magnitude of a row of zeros.
_SMALLEST = np.array(1e-30, np.float32)


class IntegerWeight(NamedTuple):
    """An int8 weight [in, out] and the float32 scale of each output channel."""

    integers: ir.Value
    scale: ir.Value


class _Rows(NamedTuple):
    """An activation as uint8 [..., rows, in], or [..., 2 rows, in] in two parts, and its row scales [..., rows, 1]."""

    integers: ir.Value
    scales: ir.Value


def replace_product(graph: ir.Model, product: ir.Node, weight: IntegerWeight, *, in_two_parts: bool) -> None:
    """Replace a MatMul by MatMulIntegerToFloat, applied to the activation before its Q/DQ, scaled by the maximum of each row.

    In two parts, each row is followed by its rounding error. The result is as exact as with 16-bit activations, at twice the
    arithmetic for the same bytes of weights.
    """
    nodes = new_nodes(graph)
    rows = _quantised_rows(nodes, _before_quantisation(product.inputs[0]), in_two_parts=in_two_parts)
    unscaled = _product(nodes, rows.integers, weight)
    if in_two_parts:
        coarse, fine = nodes.split(unscaled, _ROWS, 2)
        unscaled = nodes.add("Add", coarse, nodes.add("Mul", fine, nodes.constant("fine_share", _FINE_SHARE)))
    _replace(nodes, product, nodes.add("Mul", unscaled, rows.scales))


def replace_stacked_product(graph: ir.Model, product: ir.Node, weights: list[IntegerWeight]) -> None:
    """Replace the matmul with a stack of experts' weights in the same way, expert by expert."""
    nodes = new_nodes(graph)
    activation = _before_quantisation(product.inputs[0])
    rows = _quantised_rows(nodes, activation, in_two_parts=False)
    parts = [rows.integers] * len(weights)
    if not _is_shared_by_experts(activation):
        parts = nodes.split(rows.integers, 0, len(weights))
    outputs = [_product(nodes, part, weight) for part, weight in zip(parts, weights, strict=True)]
    _replace(nodes, product, nodes.add("Mul", nodes.add("Concat", *outputs, axis=0), rows.scales))


def is_dequantised(value: ir.Value | None) -> bool:
    """Return True if a value is an int8 initializer followed by DequantizeLinear."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return False
    stored = node.inputs[0]
    return stored is not None and stored.is_initializer() and stored.dtype == ir.DataType.INT8


def stored_weight(value: ir.Value | None) -> IntegerWeight:
    """Return the int8 initializer before a DequantizeLinear, and its scale."""
    node = None if value is None else value.producer()
    assert node is not None
    integers, scale = node.inputs[:2]
    assert integers is not None
    assert scale is not None
    return IntegerWeight(integers, scale)


def is_stack(value: ir.Value | None) -> bool:
    """Return True if a value is the stacked expert weights [experts, in, out] of the transition.

    Portable graphs store these weights in 16 bit.
    """
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 3


def quantised_stack(graph: ir.Model, stack: ir.Value | None, weights: AddedWeights) -> list[IntegerWeight]:
    """Return int8 weights and scales of every expert: symmetric, per output channel, as in the other layers."""
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
            graph.graph.register_initializer(value)
        quantised.append(IntegerWeight(*pair))
    return quantised


def new_nodes(graph: ir.Model) -> NewNodes:
    """Return an empty set of new nodes for the passes that quantise dynamically."""
    return NewNodes(graph, "dynamic_quantisation")


def last_axis(nodes: NewNodes) -> ir.Value:
    """Return the axes input for an operator over the last axis."""
    return nodes.constant("last_axis", np.array([-1]))


def _product(nodes: NewNodes, rows: ir.Value, weight: IntegerWeight) -> ir.Value:
    level, zero = nodes.constant("level", _LEVEL), nodes.constant("zero", _ZERO)
    inputs = (rows, weight.integers, level, weight.scale, zero)
    return nodes.add("MatMulIntegerToFloat", *inputs, domain=ONNXRUNTIME_DOMAIN)


def _replace(nodes: NewNodes, product: ir.Node, result: ir.Value) -> None:
    """Put the nodes in place of a matmul. The result takes over its output."""
    output = product.outputs[0]
    result.name, result.type, result.shape = output.name, output.type, output.shape
    nodes.insert_before(product)
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)


def _quantised_rows(nodes: NewNodes, activation: ir.Value | None, *, in_two_parts: bool) -> _Rows:
    level, zero = nodes.constant("level", _LEVEL), nodes.constant("zero", _ZERO)
    most = nodes.add("ReduceMax", nodes.add("Abs", activation), last_axis(nodes), keepdims=1)
    scales = nodes.add("Max", most, nodes.constant("smallest", _SMALLEST))  # [..., rows, 1]
    unit = nodes.add("Div", activation, scales)
    coarse = nodes.add("QuantizeLinear", unit, level, zero)
    if not in_two_parts:
        return _Rows(coarse, scales)
    rest = nodes.add("Sub", unit, nodes.add("DequantizeLinear", coarse, level, zero))
    fine = nodes.add("QuantizeLinear", rest, nodes.constant("fine_level", _FINE_LEVEL), zero)
    return _Rows(nodes.add("Concat", coarse, fine, axis=_ROWS), scales)


def _is_shared_by_experts(activation: ir.Value | None) -> bool:
    """Return True if all experts read one input [1, rows, in], by Unsqueeze; False if each has its own in [experts, rows,
    in].
    """
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
