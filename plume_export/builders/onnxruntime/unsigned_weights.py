"""Convert the int8 weights of matmuls to uint8 with zero point 128, for CPUs whose sums of uint8 by int8 products saturate.

ONNX Runtime would make the same change in memory, once per session, and could not memory-map the result.

Requires: int8 weights that only matmuls read, in all graphs of the bundle. Ensures: graphs and files agree after both functions
ran; sums and results are unchanged.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...bundle import WEIGHTS
from ...weight_file import change_dtypes, read_header

_ZERO = np.uint8(128)


class FilePart(NamedTuple):
    """Position of a tensor in a file of a bundle, in bytes."""

    file: str
    offset: int
    length: int


def take_unsigned_weights(graph: ir.Model) -> set[FilePart]:
    """Declare the int8 weights of a graph's matmuls as uint8 with zero point 128.

    Return the parts of files that `add_128` must change. Source: operator MatMulIntegerToFloat of domain com.microsoft.
    """
    parts = set()
    for node in graph.graph:
        if node.op_type != "MatMulIntegerToFloat":
            continue
        _, weight, _, _, zero = node.inputs
        assert weight is not None
        assert weight.const_value is not None
        assert all(use.node.op_type == node.op_type for use in weight.uses())
        if weight.const_value.dtype == ir.DataType.INT8:  # another matmul may share the weight
            weight.const_value, part = _unsigned(weight.const_value)
            weight.dtype = ir.DataType.UINT8
            parts |= part
        node.resize_inputs(6)
        node.replace_input_with(5, zero)  # inputs have zero point 128 too
    return parts


def _unsigned(stored: ir.TensorProtocol) -> tuple[ir.TensorProtocol, set[FilePart]]:
    """Return a weight as uint8, and the parts of files that must change for that."""
    if not isinstance(stored, ir.ExternalTensor):
        return ir.tensor(stored.numpy().view(np.uint8) ^ _ZERO, name=stored.name), set()
    offset, length = stored.offset, stored.length
    assert offset is not None
    assert length is not None
    declared = ir.ExternalTensor(
        stored.location,
        offset,
        length,
        ir.DataType.UINT8,
        shape=ir.Shape(stored.shape.dims),
        name=stored.name,
        base_dir=stored.base_dir,
    )
    return declared, {FilePart(str(stored.location), offset, length)}


def add_128(directory: Path, parts: Iterable[FilePart]) -> None:
    """Convert int8 values in a directory's files to uint8, in place. The header of the weight file is updated."""
    parts = set(parts)
    for part in parts:
        with (directory / part.file).open("r+b") as file:
            file.seek(part.offset)
            values = np.frombuffer(file.read(part.length), np.uint8)
            file.seek(part.offset)
            file.write((values ^ _ZERO).data)
    weights, offsets = directory / WEIGHTS, {part.offset for part in parts if part.file == WEIGHTS}
    change_dtypes(weights, {name: "uint8" for name, tensor in read_header(weights).items() if tensor.offset in offsets})
