"""The layers of an engine, as its builder or TensorRT's engine inspector lists them.

Both list the same: name, kind, tensors with dtype and shape. The builder's verbose log has it as text, one line a layer; the
inspector as JSON. TensorRT 11 and TensorRT-RTX call a tensor's dtype `Datatype`, TensorRT 10 `Format/Datatype`. Constants are
among the inputs in TensorRT 10, and a list of their own later.
"""

import re

import msgspec

from ...errors import PlumeExportError

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<tensors>Inputs: \[.*)$", re.MULTILINE)
_OUTPUTS = "Outputs: ["
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<shape>[-\d,]*)\],"
    r"[^{}]*?Datatype: (?P<dtype>[^,{}]*?)\s*[,}]"
)


class EngineTensor(msgspec.Struct, frozen=True):
    """An input or output of a layer. `dtype` is in the builder's words (Half, BFloat16, Float); -1 is a dynamic size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class EngineLayer(msgspec.Struct, frozen=True):
    """One layer as it runs: a kernel, or several that were fused. Its constants are among the inputs."""

    name: str
    kind: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]


def layers_from_log(text: str) -> tuple[EngineLayer, ...]:
    """Parse the list in a builder's log; what is no layer's line is passed over."""
    return tuple(_layer_from_line(match) for match in _LAYER.finditer(text))


def layers_from_inspector(text: str) -> tuple[EngineLayer, ...]:
    """Parse the inspector's JSON of a whole engine. Raises PlumeExportError if it lists names only."""
    layers = msgspec.json.decode(text)["Layers"]
    if any(isinstance(layer, str) for layer in layers):
        raise PlumeExportError(
            "The engine tells the names of its layers only.", fix="compile the bundle again with this version of plume-export"
        )
    return tuple(
        EngineLayer(
            name=layer["Name"],
            kind=layer.get("LayerType", ""),
            inputs=tuple(_tensor_from_json(tensor) for tensor in [*layer.get("Inputs", []), *layer.get("Constants", [])]),
            outputs=tuple(_tensor_from_json(tensor) for tensor in layer.get("Outputs", [])),
        )
        for layer in layers
    )


def dtypes_of(layer: EngineLayer) -> str:
    """Return the distinct dtypes that a layer writes, in order: its precisions."""
    return ", ".join(dict.fromkeys(tensor.dtype for tensor in layer.outputs))


def _layer_from_line(match: re.Match[str]) -> EngineLayer:
    inputs, _, outputs = match["tensors"].partition(_OUTPUTS)
    return EngineLayer(match["name"], match["kind"], _tensors_from_text(inputs), _tensors_from_text(outputs))


def _tensors_from_text(text: str) -> tuple[EngineTensor, ...]:
    return tuple(
        EngineTensor(found["name"], found["dtype"], tuple(int(size) for size in found["shape"].split(",") if size))
        for found in _TENSOR.finditer(text)
    )


def _tensor_from_json(tensor: dict[str, object]) -> EngineTensor:
    dtype = tensor.get("Datatype", tensor.get("Format/Datatype", ""))
    return msgspec.convert(
        {"name": tensor.get("Name", ""), "dtype": dtype, "shape": tensor.get("Dimensions", [])}, EngineTensor
    )
