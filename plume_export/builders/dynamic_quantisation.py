"""Rewrite an integer graph for ONNX Runtime's CPU provider: dynamically quantised products, everything else in float32.

Requires: the form that `precision.quantise_graph` writes, with int8 weights. Ensures: int8 weights are the same initializers,
activations take their scale from what they hold, the embedding table is never widened, no 16-bit float is left (the provider
has no kernels for them). Source: operator DynamicQuantizeMatMul of domain com.microsoft.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

DOMAIN = "com.microsoft"
# External data that starts on a page is mapped from the file.
_PAGE_BYTES = 4096
# Below this a tensor lies in the graph's own file.
_INLINE_BYTES = 65536


class WidenedWeights:
    """The file of tensors that were widened to float32; those that graphs share by name stand in it once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: dict[str, ir.ExternalTensor] = {}

    def widened(self, name: str, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """Return a tensor in float32: in the file if it is large, else in memory."""
        if tensor.size * np.dtype(np.float32).itemsize < _INLINE_BYTES:
            return ir.tensor(tensor.numpy().astype(np.float32), name=name)
        if name not in self._written:
            self._written[name] = self._write(name, tensor)
        return self._written[name]

    def _write(self, name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        values = np.ascontiguousarray(tensor.numpy(), np.float32)
        with self._file.open("ab") as file:
            file.write(bytes(-file.tell() % _PAGE_BYTES))
            offset = file.tell()
            file.write(values.data)
        shape, folder = ir.Shape(values.shape), self._file.parent
        return ir.ExternalTensor(
            self._file.name, offset, values.nbytes, ir.DataType.FLOAT, shape=shape, name=name, base_dir=folder
        )


def quantise_dynamically(graph: ir.Model, weights: WidenedWeights) -> int:
    """Rewrite a graph in place; return how many products are quantised. Large widened tensors go to `weights`."""
    products = 0
    for node in list(graph.graph):
        if node.op_type == "MatMul" and _is_dequantised(node.inputs[1]):
            _replace_product(graph, node)
            products += 1
        elif node.op_type == "Gather" and _is_dequantised(node.inputs[0]):
            _gather_before_widening(graph, node)
    RemoveUnusedNodesPass()(graph)
    _widen(graph, weights)
    _remove_idle_casts(graph)
    if products:
        graph.graph.opset_imports[DOMAIN] = 1
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


def _replace_product(graph: ir.Model, product: ir.Node) -> None:
    """MatMul, and the Add of a bias behind it, become DynamicQuantizeMatMul on the activation before its Q/DQ."""
    integers, scale = _stored(product.inputs[1])
    bias, replaced = _bias_behind(product)
    operands = [_before_quantisation(product.inputs[0]), integers, scale, None, bias]
    node = ir.node("DynamicQuantizeMatMul", operands, domain=DOMAIN)
    output = replaced.outputs[0]
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = output.name, output.type, output.shape
    graph.graph.insert_before(replaced, node)
    ir.convenience.replace_all_uses_with(output, node.outputs[0], replace_graph_outputs=True)


def _bias_behind(product: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """Return the bias that is added to a product and its Add; None and the product where there is none."""
    consumers = product.outputs[0].consumers()
    if len(consumers) == 1 and consumers[0].op_type == "Add" and not product.outputs[0].is_graph_output():
        for value in consumers[0].inputs:
            if value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 1:
                return value, consumers[0]
    return None, product


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
    last_axis = ir.node("Constant", [], {"value": ir.tensor(np.array([-1]))})
    column = ir.node("Unsqueeze", [scales.outputs[0], last_axis.outputs[0]])
    product = ir.node("Mul", [widened.outputs[0], column.outputs[0]])
    product.outputs[0].dtype = ir.DataType.FLOAT
    graph.graph.insert_before(gather, [rows, widened, scales, last_axis, column, product])
    ir.convenience.replace_all_uses_with(gather.outputs[0], product.outputs[0])
    graph.graph.remove(gather, safe=True)


def _widen(graph: ir.Model, weights: WidenedWeights) -> None:
    """Make every float16 value, tensor and Cast of a graph float32."""
    for name, value in graph.graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT16:
            assert value.const_value is not None
            value.const_value = weights.widened(name, value.const_value)
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
