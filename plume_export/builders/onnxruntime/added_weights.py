"""The second file of a compiled bundle's weights: what its graphs hold in another type than the portable ones."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

# External data that starts on a page is mapped from the file.
PAGE_BYTES = 4096
# Below this a tensor lies in the graph's own file.
INLINE_BYTES = 65536


class AddedWeights:
    """The file of tensors that a compiled graph holds in another type; those that graphs share by name stand in it once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: dict[str, ir.ExternalTensor] = {}

    def add(self, name: str, values: NDArray[Any]) -> ir.TensorProtocol:
        """Return a tensor that lies in the file if it is large, else in memory."""
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
