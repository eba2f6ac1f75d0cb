"""The tape on which a pass records new nodes: `onnx_ir.tape.Tape`, with constants that the nodes share."""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class NewNodes(ir.tape.Tape):
    """New nodes in order, not in the graph until the pass inserts `nodes`. Names of constants start with the pass's name."""

    def __init__(self, graph: ir.Graph, pass_name: str) -> None:
        super().__init__()
        self._graph, self._pass_name = graph, pass_name

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Return an initializer of the graph. It is created once per name, and shared by all nodes of the pass."""
        name = f"{self._pass_name}.{name}"
        initializers = self._graph.initializers
        if name not in initializers:
            self._graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
        value = initializers[name]
        assert value.const_value is not None
        assert np.array_equal(value.const_value.numpy(), array), name
        return value
