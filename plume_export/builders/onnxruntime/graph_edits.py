"""Additions of a pass to a graph: nodes, constants, and weights in the bundle's second weight file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...weight_file import PAGE_BYTES


class NewNodes:
    """New nodes in order, not yet part of the graph. Names of constants start with the name of the pass."""

    def __init__(self, graph: ir.Model, pass_name: str) -> None:
        self._graph, self._pass_name = graph, pass_name
        self._nodes: list[ir.Node] = []

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Return an initializer. It is created once per name and array, and shared by all nodes of the pass."""
        name = f"{self._pass_name}.{name}"
        initializers = self._graph.graph.initializers
        if name not in initializers:
            self._graph.graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
        value = initializers[name]
        assert value.const_value is not None
        assert np.array_equal(value.const_value.numpy(), array), name
        return value

    def add(self, operator: str, *inputs: ir.Value | None, domain: str = "", **attributes: int | Sequence[int]) -> ir.Value:
        """Add a node with one output."""
        self._nodes.append(ir.node(operator, inputs, attributes, domain=domain))
        return self._nodes[-1].outputs[0]

    def split(self, value: ir.Value, axis: int, count: int) -> list[ir.Value]:
        """Split a value into equal parts."""
        self._nodes.append(ir.node("Split", [value], {"axis": axis, "num_outputs": count}, num_outputs=count))
        return list(self._nodes[-1].outputs)

    def insert_before(self, node: ir.Node) -> None:
        """Insert the nodes into the graph, before one of its nodes."""
        self._graph.graph.insert_before(node, self._nodes)

    def insert_where_needed(self) -> None:
        """Insert the nodes into the graph, each one after the nodes that it reads."""
        self._graph.graph.extend(self._nodes)
        self._graph.graph.sort()


# Smaller tensors are stored in the graph's own file.
INLINE_BYTES = 65536


class AddedWeights:
    """The file of tensors that a compiled graph stores in another dtype. Tensors that graphs share by name are stored once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: dict[str, ir.ExternalTensor] = {}

    def add(self, name: str, values: NDArray[Any]) -> ir.TensorProtocol:
        """Return a tensor. A large tensor is stored in the file, a small one in memory."""
        if values.nbytes < INLINE_BYTES:
            return ir.tensor(values, name=name)
        if name not in self._written:
            self._written[name] = self._write(name, np.ascontiguousarray(values))
        return self._written[name]

    def _write(self, name: str, values: NDArray[Any]) -> ir.ExternalTensor:
        with self._file.open("ab") as file:
            file.write(bytes(-file.tell() % PAGE_BYTES))
            offset = file.tell()
            file.write(values.data)
        dtype, shape = ir.DataType.from_numpy(values.dtype), ir.Shape(values.shape)
        return ir.ExternalTensor(
            self._file.name, offset, values.nbytes, dtype, shape=shape, name=name, base_dir=self._file.parent
        )
