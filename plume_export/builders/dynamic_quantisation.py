"""Rewrite an integer graph for ONNX Runtime's CPU provider: dynamically quantised products, everything else in float32.

Requires: the form that `precision.quantise_graph` writes, with int8 weights. Ensures: int8 weights are the same initializers,
every row of an activation takes its scale from what it holds, the embedding table is never widened, no 16-bit float is left
(the provider has no kernels for them). Source: operator MatMulIntegerToFloat of domain com.microsoft.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..machine.software import ONNXRUNTIME_DOMAIN

# Activations are uint8 around 128: ONNX Runtime's fastest products are of uint8 by int8.
_ZERO = np.array(128, np.uint8)
_LEVEL = np.array(1 / 127, np.float32)
_LAST = np.array([-1])
# In place of the largest magnitude of a row of zeros.
_SMALLEST = np.array(1e-30, np.float32)
# External data that starts on a page is mapped from the file.
_PAGE_BYTES = 4096
# Below this a tensor lies in the graph's own file.
_INLINE_BYTES = 65536


class AddedWeights:
    """The file of tensors that a compiled graph holds in another type; those that graphs share by name stand in it once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: dict[str, ir.ExternalTensor] = {}

    def add(self, name: str, values: NDArray[Any]) -> ir.TensorProtocol:
        """Return a tensor that lies in the file if it is large, else in memory."""
        if values.nbytes < _INLINE_BYTES:
            return ir.tensor(values, name=name)
        if name not in self._written:
            self._written[name] = self._write(name, np.ascontiguousarray(values))
        return self._written[name]

    def _write(self, name: str, values: NDArray[Any]) -> ir.ExternalTensor:
        with self._file.open("ab") as file:
            file.write(bytes(-file.tell() % _PAGE_BYTES))
            offset = file.tell()
            file.write(values.data)
        dtype, shape = ir.DataType.from_numpy(values.dtype), ir.Shape(values.shape)
        return ir.ExternalTensor(
            self._file.name, offset, values.nbytes, dtype, shape=shape, name=name, base_dir=self._file.parent
        )


def quantise_dynamically(graph: ir.Model, weights: AddedWeights) -> int:
    """Rewrite a graph in place; return how many products are quantised. Large tensors that are new go to `weights`."""
    products = 0
    for node in list(graph.graph):
        if node.op_type == "MatMul" and _is_dequantised(node.inputs[1]):
            _replace_product(graph, node, [_stored(node.inputs[1])])
            products += 1
        elif node.op_type == "MatMul" and _is_stack(node.inputs[1]):
            _replace_product(graph, node, _quantised_stack(graph, node.inputs[1], weights))
            products += 1
        elif node.op_type == "Gather" and _is_dequantised(node.inputs[0]):
            _gather_before_widening(graph, node)
    RemoveUnusedNodesPass()(graph)
    _widen(graph, weights)
    _remove_idle_casts(graph)
    if products:
        graph.graph.opset_imports[ONNXRUNTIME_DOMAIN] = 1
    return products


def _is_dequantised(value: ir.Value | None) -> bool:
    """Whether a value is an int8 initializer behind DequantizeLinear."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return False
    stored = node.inputs[0]
    return stored is not None and stored.is_initializer() and stored.dtype == ir.DataType.INT8


def _stored(value: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """Return the int8 initializer behind a DequantizeLinear, and its scale."""
    node = None if value is None else value.producer()
    assert node is not None
    integers, scale = node.inputs[:2]
    assert integers is not None
    assert scale is not None
    return integers, scale


def _is_stack(value: ir.Value | None) -> bool:
    """Whether a value is the stacked weights [experts, in, out] of the transition, which portable graphs keep in 16 bit."""
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 3


def _quantised_stack(graph: ir.Model, stack: ir.Value | None, weights: AddedWeights) -> list[tuple[ir.Value, ir.Value]]:
    """Return int8 weights and scales of every expert: by output channel, symmetric, as the other layers have them."""
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
        quantised.append((pair[0], pair[1]))
    return quantised


def _replace_product(graph: ir.Model, product: ir.Node, weights: list[tuple[ir.Value, ir.Value]]) -> None:
    """MatMul becomes MatMulIntegerToFloat on the activation before its Q/DQ, divided by the largest magnitude of each row.

    One scale for a whole tensor, as DynamicQuantizeMatMul takes it, would let an embedding depend on the rest of its batch.
    `weights` are one int8 weight with its scale, or one for each expert of a stack.
    """
    activation = _before_quantisation(product.inputs[0])  # [..., rows, in]
    level, zero = _constant(graph, "level", _LEVEL), _constant(graph, "zero", _ZERO)
    magnitudes = ir.node("Abs", [activation])
    most = ir.node("ReduceMax", [magnitudes.outputs[0], _constant(graph, "last_axis", _LAST)], {"keepdims": 1})
    row_scale = ir.node("Max", [most.outputs[0], _constant(graph, "smallest", _SMALLEST)])  # [..., rows, 1]
    unit = ir.node("Div", [activation, row_scale.outputs[0]])
    quantised = ir.node("QuantizeLinear", [unit.outputs[0], level, zero])
    nodes = [magnitudes, most, row_scale, unit, quantised]
    parts = [quantised.outputs[0]] * len(weights)
    if len(weights) > 1 and not _is_shared_by_experts(activation):
        nodes.append(ir.node("Split", parts[:1], {"axis": 0, "num_outputs": len(weights)}, num_outputs=len(weights)))
        parts = list(nodes[-1].outputs)
    products = [
        ir.node("MatMulIntegerToFloat", [part, integers, level, scale, zero], domain=ONNXRUNTIME_DOMAIN)
        for part, (integers, scale) in zip(parts, weights, strict=True)
    ]
    nodes += products
    if len(weights) > 1:
        nodes.append(ir.node("Concat", [node.outputs[0] for node in products], {"axis": 0}))
    output = product.outputs[0]
    scaled = ir.node("Mul", [nodes[-1].outputs[0], row_scale.outputs[0]])  # [..., rows, out]
    scaled.outputs[0].name, scaled.outputs[0].type, scaled.outputs[0].shape = output.name, output.type, output.shape
    graph.graph.insert_before(product, [*nodes, scaled])
    ir.convenience.replace_all_uses_with(output, scaled.outputs[0], replace_graph_outputs=True)


def _is_shared_by_experts(activation: ir.Value | None) -> bool:
    """Whether all experts read one input [1, rows, in], by Unsqueeze, or each its own of [experts, rows, in]."""
    node = None if activation is None else activation.producer()
    return node is not None and node.op_type == "Unsqueeze"


def _before_quantisation(value: ir.Value | None) -> ir.Value | None:
    """Walk back over DequantizeLinear and QuantizeLinear: the range of this input is taken from itself."""
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        node = None if value is None else value.producer()
        if node is None or node.op_type != operator:
            break
        value = node.inputs[0]
    return value


def _gather_before_widening(graph: ir.Model, gather: ir.Node) -> None:
    """Gather int8 rows and their scales, then widen what was gathered."""
    table, scale = _stored(gather.inputs[0])
    rows = ir.node("Gather", [table, gather.inputs[1]], {"axis": 0})
    widened = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT.value})
    scales = ir.node("Gather", [scale, gather.inputs[1]], {"axis": 0})
    column = ir.node("Unsqueeze", [scales.outputs[0], _constant(graph, "last_axis", _LAST)])
    product = ir.node("Mul", [widened.outputs[0], column.outputs[0]])
    product.outputs[0].dtype = ir.DataType.FLOAT
    graph.graph.insert_before(gather, [rows, widened, scales, column, product])
    ir.convenience.replace_all_uses_with(gather.outputs[0], product.outputs[0])
    graph.graph.remove(gather, safe=True)


def _constant(graph: ir.Model, name: str, array: NDArray[Any]) -> ir.Value:
    """Return an initializer of this pass, made once."""
    name = f"dynamic_quantisation.{name}"
    if name not in graph.graph.initializers:
        graph.graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
    return graph.graph.initializers[name]


def _widen(graph: ir.Model, weights: AddedWeights) -> None:
    """Make every float16 value, tensor and Cast of a graph float32."""
    for name, value in graph.graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT16:
            assert value.const_value is not None
            value.const_value = weights.add(name, value.const_value.numpy().astype(np.float32))
            value.dtype = ir.DataType.FLOAT
    for node in graph.graph:
        for attribute in list(node.attributes.values()):
            widened = _widened_attribute(node, attribute)
            if widened is not None:
                node.attributes[attribute.name] = widened
    for value in (*graph.graph.inputs, *(output for node in graph.graph for output in node.outputs)):
        if value.dtype == ir.DataType.FLOAT16:
            value.dtype = ir.DataType.FLOAT


def _widened_attribute(node: ir.Node, attribute: ir.Attr) -> ir.Attr | None:
    if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == ir.DataType.FLOAT16:
        return ir.AttrTensor(attribute.name, ir.tensor(attribute.value.numpy().astype(np.float32)))
    if node.op_type == "Cast" and attribute.name == "to" and attribute.value == ir.DataType.FLOAT16:
        return ir.AttrInt64("to", ir.DataType.FLOAT.value)
    return None


def _remove_idle_casts(graph: ir.Model) -> None:
    """Drop casts from float32 to float32; one between an input and an output of the graph stays."""
    for node in list(graph.graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        is_idle = source is not None and source.dtype == node.outputs[0].dtype == ir.DataType.FLOAT
        if source is None or not is_idle or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        graph.graph.remove(node, safe=True)
