"""Large weights as inputs of a graph, so that several engines can be bound to one copy in device memory.

Requires: a graph whose initializers lie in the bundle's weight file. Ensures: the same graph, its large initializers turned
into inputs of the same names; small ones stay, since engines fold and rearrange them.
"""

from pathlib import Path

import msgspec

from ...spec import TensorSpec

# Smaller tensors (norms, biases, rotary frequencies) stay in the engine.
SHARED_BYTES = 1 << 16


def write_graph_with_shared_weights(source: Path, target: Path) -> tuple[TensorSpec, ...]:
    """Write the graph to `target`, which must lie beside the weight file; return the new inputs."""
    import onnx_ir as ir

    model = ir.load(source)
    graph = model.graph
    inputs = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes >= SHARED_BYTES:
            value.const_value = None
            del graph.initializers[name]
            graph.inputs.append(value)
            described = {"name": name, "dtype": str(tensor.dtype.numpy()), "axes": tuple(tensor.shape.numpy())}
            inputs.append(msgspec.convert(described, TensorSpec))
    ir.save(model, target)
    return tuple(inputs)
