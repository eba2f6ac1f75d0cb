"""Rewrite a quantised graph for ONNX Runtime's CPU provider: dynamically quantised matmuls, everything else in float32.

Requires: the form that `quantise.quantise_graph` writes, with int8 weights. Ensures: int8 weights stay the same initializers,
every row of an activation has its own scale, the embedding table is never widened, and no 16-bit float remains (the provider
has no kernels for it). Source: operator MatMulIntegerToFloat of domain com.microsoft.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...machine.software import ONNXRUNTIME_DOMAIN
from .graph_edits import AddedWeights
from .integer_products import (
    is_dequantised,
    is_stack,
    last_axis,
    new_nodes,
    quantised_stack,
    replace_product,
    replace_stacked_product,
    stored_weight,
)


def quantise_dynamically(graph: ir.Model, weights: AddedWeights) -> int:
    """Rewrite a graph in place. Return the number of quantised matmuls. New large tensors go to `weights`."""
    products = 0
    for node in list(graph.graph):
        if node.op_type == "MatMul" and is_dequantised(node.inputs[1]):
            replace_product(graph, node, stored_weight(node.inputs[1]), in_two_parts=_is_left_in_16_bit(node.inputs[0]))
            products += 1
        elif node.op_type == "MatMul" and is_stack(node.inputs[1]):
            replace_stacked_product(graph, node, quantised_stack(graph, node.inputs[1], weights))
            products += 1
        elif node.op_type == "Gather" and is_dequantised(node.inputs[0]):
            _gather_before_widening(graph, node)
    RemoveUnusedNodesPass()(graph)
    _widen(graph, weights)
    _remove_idle_casts(graph)
    if products:
        graph.graph.opset_imports[ONNXRUNTIME_DOMAIN] = 1
    return products


def _is_left_in_16_bit(activation: ir.Value | None) -> bool:
    """Return True if the quantisation plan left a matmul's input in 16 bit: it has no Q/DQ."""
    producer = None if activation is None else activation.producer()
    return producer is None or producer.op_type != "DequantizeLinear"


def _gather_before_widening(graph: ir.Model, gather: ir.Node) -> None:
    """Gather int8 rows and their scales, then widen the result."""
    table, scale = stored_weight(gather.inputs[0])
    nodes = new_nodes(graph)
    widened = nodes.add("Cast", nodes.add("Gather", table, gather.inputs[1], axis=0), to=ir.DataType.FLOAT.value)
    column = nodes.add("Unsqueeze", nodes.add("Gather", scale, gather.inputs[1], axis=0), last_axis(nodes))
    product = nodes.add("Mul", widened, column)
    product.dtype = ir.DataType.FLOAT
    nodes.insert_before(gather)
    ir.convenience.replace_all_uses_with(gather.outputs[0], product)
    graph.graph.remove(gather, safe=True)


def _widen(graph: ir.Model, weights: AddedWeights) -> None:
    """Convert every float16 value, tensor and Cast of a graph to float32."""
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
    """Remove casts from float32 to float32, except between an input and an output of the graph."""
    for node in list(graph.graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        is_idle = source is not None and source.dtype == node.outputs[0].dtype == ir.DataType.FLOAT
        if source is None or not is_idle or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        graph.graph.remove(node, safe=True)
