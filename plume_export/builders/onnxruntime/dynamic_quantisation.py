"""Rewrite a quantised graph for ONNX Runtime's CPU provider: dynamically quantised matmuls, everything else in float32.

A rewrite rule (`onnxscript.rewriter`) would not be simpler: a MatMul is replaced by three forms, and all of them depend on the
initializers behind it, which they keep or split.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...machine.software import ONNXRUNTIME_DOMAIN
from .compiled_weights import CompiledWeights
from .integer_matmuls import (
    is_dequantised,
    is_stack,
    last_axis,
    new_nodes,
    quantised_stack,
    replace_expert_matmul,
    replace_matmul,
    stored_weight,
)


class DynamicQuantisation(ir.passes.InPlacePass):
    """Quantise the activations of int8 layers at run time, one scale per row. New large tensors go to `weights`.

    Requires: Q/DQ as `QuantiseGraph` writes it, and no bfloat16. Ensures: the int8 weights stay the same
    initializers, the embedding table is never widened, and no float16 remains (the provider has no kernels for it).
    """

    def __init__(self, weights: CompiledWeights) -> None:
        self._weights = weights

    def requires(self, model: ir.Model) -> None:
        _check_no_value_is(ir.DataType.BFLOAT16, model.graph)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        for node in list(graph):
            if node.op_type == "MatMul" and is_dequantised(node.inputs[1]):
                in_two_parts = not _is_dequantised_activation(node.inputs[0])
                replace_matmul(graph, node, stored_weight(node.inputs[1]), in_two_parts=in_two_parts)
            elif node.op_type == "MatMul" and is_stack(node.inputs[1]):
                replace_expert_matmul(graph, node, quantised_stack(graph, node.inputs[1], self._weights))
            elif node.op_type == "Gather" and is_dequantised(node.inputs[0]):
                _gather_before_widening(graph, node)
        RemoveUnusedNodesPass()(model)
        _widen(graph, self._weights)
        _remove_idle_casts(graph)
        if any(node.domain == ONNXRUNTIME_DOMAIN for node in graph):
            graph.opset_imports[ONNXRUNTIME_DOMAIN] = 1
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        _check_no_value_is(ir.DataType.FLOAT16, model.graph)


def _check_no_value_is(dtype: ir.DataType, graph: ir.Graph) -> None:
    computed = (value for node in graph for value in node.outputs)
    for value in (*graph.inputs, *graph.initializers.values(), *computed):
        if value.dtype == dtype:
            raise ir.passes.InvariantError(f"{value.name} is {dtype.name.lower()}")


def _is_dequantised_activation(activation: ir.Value | None) -> bool:
    """Return False if the quantisation plan left a matmul's input in 16 bit: it has no Q/DQ."""
    producer = None if activation is None else activation.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _gather_before_widening(graph: ir.Graph, gather: ir.Node) -> None:
    """Gather int8 rows and their scales, then widen the result."""
    table, scale = stored_weight(gather.inputs[0])
    nodes = new_nodes(graph)
    rows = nodes.op("Gather", [table, gather.inputs[1]], {"axis": 0})
    widened = nodes.op("Cast", [rows], {"to": ir.DataType.FLOAT.value})
    row_scales = nodes.op("Gather", [scale, gather.inputs[1]], {"axis": 0})
    scaled = nodes.op("Mul", [widened, nodes.op("Unsqueeze", [row_scales, last_axis(nodes)])])
    scaled.dtype = ir.DataType.FLOAT
    graph.insert_before(gather, nodes.nodes)
    ir.convenience.replace_all_uses_with(gather.outputs[0], scaled)
    graph.remove(gather, safe=True)


def _widen(graph: ir.Graph, weights: CompiledWeights) -> None:
    """Convert every float16 value, tensor and Cast of a graph to float32."""
    for name, value in graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT16:
            assert value.const_value is not None
            value.const_value = weights.add(name, value.const_value.numpy().astype(np.float32))
            value.dtype = ir.DataType.FLOAT
    for node in graph:
        for attribute in list(node.attributes.values()):
            widened = _widened_attribute(node, attribute)
            if widened is not None:
                node.attributes[attribute.name] = widened
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.dtype == ir.DataType.FLOAT16:
            value.dtype = ir.DataType.FLOAT


def _widened_attribute(node: ir.Node, attribute: ir.Attr) -> ir.Attr | None:
    if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == ir.DataType.FLOAT16:
        return ir.AttrTensor(attribute.name, ir.tensor(attribute.value.numpy().astype(np.float32)))
    if node.op_type == "Cast" and attribute.name == "to" and attribute.value == ir.DataType.FLOAT16:
        return ir.AttrInt64("to", ir.DataType.FLOAT.value)
    return None


def _remove_idle_casts(graph: ir.Graph) -> None:
    """Remove casts from float32 to float32, except between an input and an output of the graph."""
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        is_idle = source is not None and source.dtype == node.outputs[0].dtype == ir.DataType.FLOAT
        if source is None or not is_idle or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        graph.remove(node, safe=True)
