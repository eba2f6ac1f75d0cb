"""Large weights as inputs of a graph, so that several engines can be bound to one copy in device memory.

Requires: a graph whose initializers lie in the bundle's weight file. Ensures: the same graph, its large initializers turned
into inputs of the same names; small ones stay, since engines fold and rearrange them.
"""

from pathlib import Path

# Smaller tensors (norms, biases, rotary frequencies) stay in the engine.
SHARED_BYTES = 1 << 16


def write_graph_with_shared_weights(source: Path, target: Path) -> tuple[str, ...]:
    """Write the graph to `target`, which must lie beside the weight file; return the names of the new inputs."""
    import onnx_ir as ir

    model = ir.load(source)
    graph = model.graph
    names = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes >= SHARED_BYTES:
            value.const_value = None
            del graph.initializers[name]
            graph.inputs.append(value)
            names.append(name)
    ir.save(model, target)
    return tuple(names)
