"""Values that are finite in a checkpoint and would not be in the weight file are an error."""

from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from plume_export.errors import PlumeExportError
from plume_export.graphs.weights import write_weights


def write(file: Path, dtype: ir.DataType, largest: float, stored: torch.dtype = torch.float32) -> None:
    value = ir.Value(name="layer.weight", shape=ir.Shape([2, 3]), type=ir.TensorType(dtype))
    tensor = torch.tensor([[0.0, largest, -largest], [1.0, 2.0, 3.0]]).to(stored)
    write_weights(file, {"layer.weight": value}, lambda _: tensor)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_what_float16_cannot_hold(tmp_path: Path, stored: torch.dtype) -> None:
    with pytest.raises(PlumeExportError, match=r"2 of the 6 values of layer\.weight overflow float16(.|\n)*precision bf16"):
        write(tmp_path / "weights", ir.DataType.FLOAT16, 70_000, stored)
    write(tmp_path / "weights", ir.DataType.FLOAT16, 65_024, stored)
    write(tmp_path / "weights", ir.DataType.BFLOAT16, 70_000, stored)


def test_what_other_formats_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(PlumeExportError, match=r"2 of the 6 values of .* overflow bfloat16"):
        write(tmp_path / "weights", ir.DataType.BFLOAT16, 3.4e38)
    with pytest.raises(PlumeExportError, match=r"2 of the 6 values of .* overflow float32"):
        write(tmp_path / "weights", ir.DataType.FLOAT, 1e39, torch.float64)
