"""Replace the decoder's RMS norms by ONNX Runtime's operator: one pass over the hidden state instead of seven.

The pattern is the trace of `graphs.layers.RMSNorm`. Ensures: the same values, computed in float32. Source: operator
SimplifiedLayerNormalization, which ONNX Runtime adds to ONNX's own domain.
"""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

# From the hidden state's inverse root mean square back to its square.
_CHAIN = ("Reciprocal", "Sqrt", "Add", "ReduceMean", "Mul")


def fuse_norms(graph: ir.Model) -> int:
    """Replace every RMS norm. Return the number of replacements."""
    chains = [chain for node in graph.graph if (chain := _match(node)) is not None]
    for reciprocal, add, square in chains:
        assert add.inputs[1] is not None
        epsilon = ir.convenience.get_const_tensor(add.inputs[1])
        assert epsilon is not None
        (unit,) = reciprocal.outputs[0].consumers()
        (weighted,) = unit.outputs[0].consumers()
        attributes = {"axis": -1, "epsilon": float(epsilon.numpy().item()), "stash_type": ir.DataType.FLOAT.value}
        norm = ir.node("SimplifiedLayerNormalization", [square.inputs[0], weighted.inputs[0]], attributes)
        normed, output = norm.outputs[0], weighted.outputs[0]  # the output of the last norm is a named output of the graph
        normed.name, normed.type, normed.shape = output.name, output.type, output.shape
        graph.graph.insert_before(weighted, norm)
        ir.convenience.replace_all_uses_with(output, normed, replace_graph_outputs=True)
    RemoveUnusedNodesPass()(graph)
    return len(chains)


def _match(reciprocal: ir.Node) -> tuple[ir.Node, ir.Node, ir.Node] | None:
    """Return the Reciprocal, the Add of epsilon and the square of one norm. Return None for another use of Reciprocal."""
    chain: list[ir.Node] = []
    node: ir.Node | None = reciprocal
    for op_type in _CHAIN:
        if node is None or node.op_type != op_type:
            return None
        chain.append(node)
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    square = chain[-1]
    return (reciprocal, chain[2], square) if square.inputs[0] is square.inputs[1] else None
