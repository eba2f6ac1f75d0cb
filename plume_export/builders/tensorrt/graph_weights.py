"""The weights of a graph: bytes shared with another graph, and large weights turned into inputs."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...errors import BundleError
from ...spec import TensorSpec


@dataclass(frozen=True)
class GraphWeights:
    """Initializers of a graph: (offset, length) of those in the bundle's weight file, and the bytes of those in the graph's
    file.
    """

    stored: frozenset[tuple[int, int]]
    inline_bytes: int

    @property
    def bytes(self) -> int:
        return self.inline_bytes + sum(length for _, length in self.stored)


def weights_of_graph(file: Path) -> GraphWeights:
    """Return the positions of an ONNX graph's initializers without reading them. Raises BundleError for a corrupt file."""
    import onnx_ir as ir

    try:
        tensors = [value.const_value for value in ir.load(file).graph.initializers.values()]
        stored = {(tensor.offset or 0, tensor.nbytes) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
        inline_bytes = sum(
            tensor.nbytes for tensor in tensors if tensor is not None and not isinstance(tensor, ir.ExternalTensor)
        )
    except Exception as error:  # protobuf, onnx and onnx_ir have no common error class
        raise BundleError(f"{file} cannot be read: {error}", fix="build the bundle again") from error
    return GraphWeights(frozenset(stored), inline_bytes)


def duplicate_bytes(graphs: Iterable[GraphWeights]) -> int:
    """Return the bytes of the weight file that more than one graph holds, counted once for each copy after the first."""
    holders = Counter(part for graph in graphs for part in graph.stored)
    return sum(length * (count - 1) for (_, length), count in holders.items())


# Smaller tensors (norms, biases, rotary frequencies) stay in the engine.
SHARED_BYTES = 1 << 16


def write_graph_with_shared_weights(source: Path, target: Path) -> tuple[TensorSpec, ...]:
    """Write the graph to `target`, which must be beside the weight file. Return the new inputs."""
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
