"""The weights of compiled graphs: tensors that passes add, and int8 tensors that become uint8.

Graphs share tensors, so each tensor is written and converted once for all graphs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...bundle import WEIGHTS
from ...weight_file import PAGE_BYTES, FileRange, change_dtypes, read_header

# Beside weights.safetensors: tensors that the CPU graphs store in another dtype than the portable graphs.
ADDED_WEIGHTS = "weights-cpu.bin"
# Smaller tensors are stored in the graph's own file.
INLINE_BYTES = 65536
_ZERO_POINT = np.uint8(128)


class CompiledWeights:
    """The weight files in a directory. Passes get tensors from it; `convert_to_uint8` writes the conversions at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._added: dict[str, ir.ExternalTensor] = {}
        self._uint8: set[tuple[str, FileRange]] = set()  # files and parts of them

    def add(self, name: str, values: NDArray[Any]) -> ir.TensorProtocol:
        """Return a new tensor. A large tensor is stored in the file of added weights, a small one in memory."""
        if values.nbytes < INLINE_BYTES:
            return ir.tensor(values, name=name)
        if name not in self._added:
            self._added[name] = self._written(name, np.ascontiguousarray(values))
        return self._added[name]

    def uint8_from_int8(self, stored: ir.TensorProtocol) -> ir.TensorProtocol:
        """Return an int8 tensor as uint8 with zero point 128. Its bytes in a file change in `convert_to_uint8`."""
        if not isinstance(stored, ir.ExternalTensor):
            return ir.tensor(_uint8_from_int8(stored.numpy().view(np.uint8)), name=stored.name)
        offset, length = stored.offset, stored.length
        assert offset is not None
        assert length is not None
        self._uint8.add((str(stored.location), FileRange(offset, length)))
        shape = ir.Shape(stored.shape.dims)
        return ir.ExternalTensor(
            stored.location, offset, length, ir.DataType.UINT8, shape=shape, name=stored.name, base_dir=stored.base_dir
        )

    def convert_to_uint8(self) -> None:
        """Convert the bytes and the header entries of the tensors that became uint8, in place."""
        for name, part in self._uint8:
            with (self._directory / name).open("r+b") as file:
                file.seek(part.offset)
                values = np.frombuffer(file.read(part.length), np.uint8)
                file.seek(part.offset)
                file.write(_uint8_from_int8(values).data)
        offsets = {part.offset for name, part in self._uint8 if name == WEIGHTS}
        if offsets:
            weights = self._directory / WEIGHTS
            tensors = read_header(weights).items()
            change_dtypes(weights, {name: "uint8" for name, tensor in tensors if tensor.offset in offsets})

    def _written(self, name: str, values: NDArray[Any]) -> ir.ExternalTensor:
        with (self._directory / ADDED_WEIGHTS).open("ab") as file:
            file.write(bytes(-file.tell() % PAGE_BYTES))
            offset = file.tell()
            file.write(values.data)
        dtype, shape = ir.DataType.from_numpy(values.dtype), ir.Shape(values.shape)
        return ir.ExternalTensor(ADDED_WEIGHTS, offset, values.nbytes, dtype, shape=shape, name=name, base_dir=self._directory)


def _uint8_from_int8(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bytes of int8 values + 128: only the sign bit differs."""
    return np.bitwise_xor(raw, _ZERO_POINT)
