"""Replace rotary embeddings by ONNX Runtime's operator: one pass over queries or keys instead of eight.

The pattern is the trace of `graphs.layers.Rotary.rotate`. The graph still computes the angles, of M-RoPE or of the patches.
Their cosines and sines become the operator's table, in which every row of the batch has its own entries. Source: operator
RotaryEmbedding of domain com.microsoft.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...machine.software import ONNXRUNTIME_DOMAIN


@dataclass(frozen=True)
class Rotation:
    """One matched rotation: its input [batch, heads, rows, head_dim], its cosines and sines, and its result."""

    source: ir.Value
    cos: ir.Value
    sin: ir.Value
    output: ir.Value


def fuse_rotary(graph: ir.Model) -> int:
    """Replace every rotary embedding. Return the number of replacements."""
    found = [rotation for node in graph.graph if (rotation := _match(node)) is not None]
    operands: list[ir.Value] = []
    for rotation in found:
        concat = rotation.output.producer()
        assert concat is not None
        if not operands:  # all layers have the same angles
            nodes, operands = _table(rotation)
            graph.graph.insert_before(concat, nodes)
        node = ir.node("RotaryEmbedding", [rotation.source, *operands], domain=ONNXRUNTIME_DOMAIN)
        rotated, output = node.outputs[0], rotation.output  # rotated keys are named outputs of the graph
        rotated.name, rotated.type, rotated.shape = output.name, output.type, output.shape
        graph.graph.insert_before(concat, node)
        ir.convenience.replace_all_uses_with(output, rotated, replace_graph_outputs=True)
    if found:
        assert len({(rotation.cos, rotation.sin) for rotation in found}) == 1, "layers with different angles"
        graph.graph.opset_imports[ONNXRUNTIME_DOMAIN] = 1
    RemoveUnusedNodesPass()(graph)
    return len(found)


def _match(concat: ir.Node) -> Rotation | None:
    """Match [first * cos - second * sin, second * cos + first * sin]. Return None for another use of Concat."""
    if concat.op_type != "Concat" or len(concat.inputs) != 2:
        return None
    products = []
    for value, op_type in zip(concat.inputs, ("Sub", "Add"), strict=True):
        node = None if value is None else value.producer()
        if node is None or node.op_type != op_type:
            return None
        for operand in node.inputs:
            product = None if operand is None else operand.producer()
            if product is None or product.op_type != "Mul":
                return None
            products.append(tuple(product.inputs))
    (first, cos), (second, sin), *rest = products
    if rest != [(second, cos), (first, sin)]:
        return None
    assert first is not None
    assert cos is not None
    assert sin is not None
    split = first.producer()
    assert split is not None
    assert split.op_type == "Split"
    assert split.inputs[0] is not None
    return Rotation(split.inputs[0], cos, sin, concat.outputs[0])


def _table(rotation: Rotation) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the new nodes, and the operator's position_ids [batch, rows], cos_cache and sin_cache [batch * rows, head_dim /
    2].

    Angles [batch, 1, rows, head_dim / 2] may lack the batch axis if they are the same for the whole batch.
    """
    one, zero, everything = (ir.node("Constant", [], {"value": ir.tensor(np.array(value))}) for value in (1, 0, [-1]))
    axis = ir.node("Constant", [], {"value": ir.tensor(np.array([1]))})
    batch = ir.node("Shape", [rotation.source], {"start": 0, "end": 1})
    rows = ir.node("Shape", [rotation.source], {"start": 2, "end": 3})
    half = ir.node("Shape", [rotation.cos], {"start": -1})
    whole = ir.node("Concat", [batch.outputs[0], axis.outputs[0], rows.outputs[0], half.outputs[0]], {"axis": 0})
    flat = ir.node("Concat", [everything.outputs[0], half.outputs[0]], {"axis": 0})
    nodes = [one, zero, everything, axis, batch, rows, half, whole, flat]
    caches = []
    for angles in (rotation.cos, rotation.sin):
        expanded = ir.node("Expand", [angles, whole.outputs[0]])
        cache = ir.node("Reshape", [expanded.outputs[0], flat.outputs[0]])
        nodes += [expanded, cache]
        caches.append(cache.outputs[0])
    pair = ir.node("Concat", [batch.outputs[0], rows.outputs[0]], {"axis": 0})
    count = ir.node("ReduceProd", [pair.outputs[0]], {"keepdims": 0})
    order = ir.node("Range", [zero.outputs[0], count.outputs[0], one.outputs[0]])
    positions = ir.node("Reshape", [order.outputs[0], pair.outputs[0]])
    return [*nodes, pair, count, order, positions], [positions.outputs[0], *caches]
