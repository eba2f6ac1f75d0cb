"""The bundle's one weight file: the graphs' parameters from a checkpoint's tensors, streamed with the cast on the way.

The file is a safetensors file whose byte ranges the ONNX graphs reference as external data, so the decoder's tensors stand
on disk once for prefill and latent_step. One parameter at a time is read, arranged, cast and written.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Protocol

import onnx_ir as ir
import torch
from torch import Tensor

from ..errors import PlumeExportError
from ..spec import ModelSpec
from ..weight_file import PAGE_BYTES, StoredTensor, TensorType, write_header
from ..weight_names import Layer, layers_of

_TORCH_DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT4: torch.uint8,  # two in one
}

# Returns a graph's parameter by name.
ReadParameter = Callable[[str], Tensor]


class TensorReader(Protocol):
    """Checkpoint tensors by canonical name."""

    def read(self, name: str) -> Tensor: ...


def write_weights(path: Path, parameters: Mapping[str, ir.Value], read: ReadParameter) -> dict[str, StoredTensor]:
    """Stream the parameters, read one at a time by name, into a safetensors file; return where they lie in it.

    Resident memory is bounded by a few copies of the largest parameter. Large tensors come first and the header is padded
    to a page, so that every tensor that fills whole pages starts on a page.
    """
    order = sorted(parameters, key=lambda name: (_byte_count(parameters[name]) % PAGE_BYTES != 0, name))
    with path.open("wb") as file:
        ranges = write_header(file, {name: _stored_type(parameters[name]) for name in order})
        for name in order:
            value = parameters[name]
            tensor = read(name)
            assert tuple(tensor.shape) == tuple(value.shape or ()), (name, tensor.shape, value.shape)
            _write_tensor(file, packed_int4(tensor) if value.dtype == ir.DataType.INT4 else _cast(name, tensor, value))
    return ranges


def bind_weights(graph: ir.Model, location: str, ranges: Mapping[str, StoredTensor]) -> None:
    """Point the parameters of a graph into the weight file, by its name relative to the graph's file."""
    for name, value in graph.graph.initializers.items():
        if name in ranges:
            stored = ranges[name]
            assert value.dtype is not None
            assert value.shape is not None
            value.const_value = ir.ExternalTensor(
                location, stored.offset, stored.length, value.dtype, shape=value.shape, name=name
            )


def parameters_of(graphs: Iterable[ir.Model]) -> dict[str, ir.Value]:
    """Return the parameters of all graphs by name; graphs that share one must agree on its shape and dtype."""
    parameters: dict[str, ir.Value] = {}
    for graph in graphs:
        for name, value in graph.graph.initializers.items():
            if value.const_value is not None:
                continue  # a small constant of the graph itself
            other = parameters.setdefault(name, value)
            assert (other.shape, other.dtype) == (value.shape, value.dtype), name
    return parameters


def _cast(name: str, tensor: Tensor, value: ir.Value) -> Tensor:
    """Convert a tensor to the dtype of the graph. Raises PlumeExportError for values that are too large for it."""
    cast = tensor.to(_torch_dtype(value))
    if cast.is_floating_point() and cast.numel() and not bool(torch.stack(cast.aminmax()).isfinite().all()):
        count = int((~cast.isfinite()).sum())
        raise PlumeExportError(
            f"{count:,} of the {cast.numel():,} values of {name} overflow {_name_of(cast.dtype)}: the "
            f"largest magnitude is {float(tensor.abs().max()):,.0f}, but the maximum of this dtype is "
            f"{torch.finfo(cast.dtype).max:,.0f}.",
            fix="use --precision bf16 or fp32",
        )
    return cast


def _torch_dtype(value: ir.Value) -> torch.dtype:
    assert value.dtype is not None
    return _TORCH_DTYPES[value.dtype]


def _byte_count(value: ir.Value) -> int:
    assert value.shape is not None
    assert value.dtype is not None
    values = math.prod(size for size in value.shape if isinstance(size, int))
    return math.ceil(values * value.dtype.itemsize)


def _stored_type(value: ir.Value) -> TensorType:
    if value.dtype == ir.DataType.INT4:
        return TensorType("uint8", [_byte_count(value)])  # safetensors has no int4
    return TensorType(_name_of(_torch_dtype(value)), [size for size in value.shape or () if isinstance(size, int)])


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def packed_int4(values: Tensor) -> Tensor:
    """Return int8 values from -8 to 7 as ONNX stores int4: two in a byte, the first in the lower half."""
    low, high = values.contiguous().flatten().view(torch.uint8).reshape(-1, 2).unbind(1)
    return (low & 15) | (high << 4)


class CheckpointParameters:
    """Reads the graphs' parameters, arranged from the tensors of a checkpoint."""

    def __init__(self, tensors: TensorReader, model: ModelSpec) -> None:
        self._tensors, self._model = tensors, model
        self._packed: dict[str, list[Layer]] = defaultdict(list)
        for layer in layers_of(model):
            self._packed[layer.name].append(layer)

    def __call__(self, name: str) -> Tensor:
        """Return a parameter by its name in the graphs."""
        if name == "decoder.inverse_frequencies":
            return _inverse_frequencies(self._model.decoder.head_dim, self._model.decoder.rope_theta)
        if name == "visual.inverse_frequencies":
            return _inverse_frequencies(self._model.vision.head_dim // 2, 10000.0)
        layer, kind = name.rsplit("_" if name.startswith("transition.experts.") else ".", 1)
        packed = self._packed[layer]
        parts = [self._tensors.read(f"{part.stored}.{kind}") for part in packed]
        if packed[0].kind == "expert":
            return torch.stack([part.T if kind == "weight" else part[None] for part in parts])
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        if packed[0].kind == "linear" and kind == "weight":
            tensor = tensor.flatten(1).T  # a patch kernel [out, channels, time, height, width] is a linear weight too
        return tensor


def _inverse_frequencies(dimensions: int, theta: float) -> Tensor:
    """Rotary frequencies in the operations and dtypes of Qwen2-VL, so that positions round alike."""
    return 1.0 / (theta ** (torch.arange(0, dimensions, 2, dtype=torch.float) / dimensions))


def _write_tensor(file: IO[bytes], tensor: Tensor) -> None:
    file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
