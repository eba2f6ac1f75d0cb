"""Replace plain attention by ONNX Runtime's fused operators, so that memory grows linearly with the sequence.

The pattern is the trace of `graphs.layers.attend`: MatMul, optional Where, Softmax (optionally between casts), MatMul.
Requires: scaled queries, [batch, heads, rows, head_dim]. Ensures: the same values, no score tensor. Source: operators
MultiHeadAttention and GroupQueryAttention of domain com.microsoft.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...machine.software import ONNXRUNTIME_DOMAIN
from ...spec import ModelSpec


@dataclass(frozen=True)
class Attention:
    """One matched attention: its operands and its result in the rest of the graph, [batch, rows, heads, head_dim].

    `transpose` reads the keys, `product` the values, and `where` the mask, if there is a mask.
    """

    queries: ir.Value
    keys: ir.Value
    values: ir.Value
    output: ir.Value
    transpose: ir.Node
    product: ir.Node
    where: ir.Node | None

    @property
    def is_of_kept_rows(self) -> bool:
        """Whether it is the attention of prefill's last layer, which has queries for a few rows only."""
        transpose = _producer(self.queries)
        source = None if transpose is None or transpose.op_type != "Transpose" else _producer(transpose.inputs[0])
        return source is not None and source.op_type == "GatherND"


def fuse_vision_attention(graph: ir.Model, model: ModelSpec) -> int:
    """Replace full attention by MultiHeadAttention. Return the number of replacements."""
    heads, head_dim = model.vision.heads, model.vision.head_dim
    found = matched_attentions(graph, is_masked=False)
    for attention in found:
        operands = [_flat_heads(value, heads * head_dim) for value in (attention.queries, attention.keys, attention.values)]
        node = ir.node("MultiHeadAttention", operands, {"num_heads": heads, "scale": 1.0}, domain=ONNXRUNTIME_DOMAIN)
        _replace(graph, attention, node, heads, head_dim)
    return _finish(graph, len(found))


def fuse_prefill_attention(graph: ir.Model, model: ModelSpec) -> int:
    """Replace causal attention by GroupQueryAttention on the unexpanded heads. Return the number of replacements.

    The last layer is not replaced, because it attends from only two rows per prompt.
    """
    decoder = model.decoder
    found = [attention for attention in matched_attentions(graph, is_masked=True) if not attention.is_of_kept_rows]
    if found:
        lengths = _sequence_lengths(graph)
    for attention in found:
        kv_width = decoder.kv_heads * decoder.head_dim
        queries = _flat_heads(attention.queries, decoder.query_heads * decoder.head_dim)
        keys, values = (_flat_heads(_unexpanded(value), kv_width) for value in (attention.keys, attention.values))
        attributes = {"num_heads": decoder.query_heads, "kv_num_heads": decoder.kv_heads, "scale": 1.0}
        operands = [queries, keys, values, None, None, *lengths]
        node = ir.node("GroupQueryAttention", operands, attributes, domain=ONNXRUNTIME_DOMAIN, num_outputs=3)
        _replace(graph, attention, node, decoder.query_heads, decoder.head_dim)
    return _finish(graph, len(found))


def matched_attentions(graph: ir.Model, *, is_masked: bool) -> list[Attention]:
    """Return the attentions of a graph that are not fused, in order."""
    return [attention for node in graph.graph if (attention := _match(node, is_masked=is_masked)) is not None]


def _match(softmax: ir.Node, *, is_masked: bool) -> Attention | None:
    """Match the attention around a Softmax. Return None for another use of Softmax."""
    if softmax.op_type != "Softmax":
        return None
    scores, where = _producer(_behind_cast(softmax.inputs[0])), None
    if is_masked:
        if scores is None or scores.op_type != "Where":
            return None
        scores, where = _producer(scores.inputs[1]), scores
    product = _only_consumer(softmax.outputs[0])
    if product is not None and product.op_type == "Cast":
        product = _only_consumer(product.outputs[0])
    if scores is None or product is None or scores.op_type != "MatMul" or product.op_type != "MatMul":
        return None
    queries, transposed_keys = scores.inputs
    transpose = _producer(transposed_keys)
    output = _only_consumer(product.outputs[0])
    if transpose is None or output is None or transpose.op_type != "Transpose" or output.op_type != "Transpose":
        return None
    keys, values = transpose.inputs[0], product.inputs[1]
    assert queries is not None
    assert keys is not None
    assert values is not None
    return Attention(queries, keys, values, output.outputs[0], transpose, product, where)


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _behind_cast(value: ir.Value | None) -> ir.Value | None:
    node = _producer(value)
    return node.inputs[0] if node is not None and node.op_type == "Cast" else value


def _only_consumer(value: ir.Value) -> ir.Node | None:
    consumers = value.consumers()
    return consumers[0] if len(consumers) == 1 else None


def _unexpanded(value: ir.Value) -> ir.Value:
    """Walk back over the repetition of key/value heads: Reshape, Expand, Unsqueeze."""
    for op_type in ("Reshape", "Expand", "Unsqueeze"):
        node = _producer(value)
        assert node is not None
        assert node.op_type == op_type, (node.op_type, op_type)
        source = node.inputs[0]
        assert source is not None
        value = source
    return value


def _flat_heads(value: ir.Value, width: int) -> ir.Value:
    """Return [batch, heads, rows, head_dim] as [batch, rows, heads * head_dim]. The nodes are not yet in the graph."""
    transposed = ir.node("Transpose", [value], {"perm": [0, 2, 1, 3]}).outputs[0]
    shape = ir.node("Constant", [], {"value": ir.tensor(np.array([0, 0, width]))}).outputs[0]
    return ir.node("Reshape", [transposed, shape]).outputs[0]


def _sequence_lengths(graph: ir.Model) -> list[ir.Value]:
    """Return the operator's seqlens_k [batch] (length - 1) and total_sequence_length. Padding counts as tokens."""
    input_ids = next(value for value in graph.graph.inputs if value.name == "input_ids")
    tokens = ir.node("Shape", [input_ids], {"start": 1, "end": 2})
    one = ir.node("Constant", [], {"value": ir.tensor(np.array([1]))})
    last = ir.node("Sub", [tokens.outputs[0], one.outputs[0]])
    batch = ir.node("Shape", [input_ids], {"start": 0, "end": 1})
    last_of_each = ir.node("Expand", [last.outputs[0], batch.outputs[0]])
    seqlens = ir.node("Cast", [last_of_each.outputs[0]], {"to": ir.DataType.INT32.value})
    total = ir.node("Cast", [tokens.outputs[0]], {"to": ir.DataType.INT32.value})
    nodes = [tokens, one, last, batch, last_of_each, seqlens, total]
    graph.graph.insert_before(next(iter(graph.graph)), nodes)
    return [seqlens.outputs[0], total.outputs[0]]


def _replace(graph: ir.Model, attention: Attention, node: ir.Node, heads: int, head_dim: int) -> None:
    """Put the fused node in place of the matched output [batch, rows, heads, head_dim]."""
    anchor = attention.output.producer()
    assert anchor is not None
    shape = ir.node("Constant", [], {"value": ir.tensor(np.array([0, 0, heads, head_dim]))})
    split = ir.node("Reshape", [node.outputs[0], shape.outputs[0]])
    new_nodes: list[ir.Node] = []
    for operand in node.inputs[:3]:
        reshape = _producer(operand)
        assert reshape is not None
        new_nodes += [p for p in (_producer(value) for value in reshape.inputs) if p is not None] + [reshape]
    graph.graph.insert_before(anchor, [*new_nodes, node, shape, split])
    ir.convenience.replace_all_uses_with(attention.output, split.outputs[0])


def _finish(graph: ir.Model, count: int) -> int:
    RemoveUnusedNodesPass()(graph)
    if count:
        graph.graph.opset_imports[ONNXRUNTIME_DOMAIN] = 1
    return count
