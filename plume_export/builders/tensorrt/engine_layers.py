"""The layers of a built engine, as TensorRT's inspector reports them."""

import mmap
import re
from pathlib import Path

import msgspec

from ...bundle import Bundle
from ...errors import BundleError, PlumeExportError
from ...machine.tensorrt_log import new_log, reasons_in
from ...machine.tensorrt_variant import Variant, import_runtime
from ...spec import GraphName

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<tensors>Inputs: \[.*)$", re.MULTILINE)
_OUTPUTS = "Outputs: ["
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<shape>[-\d,]*)\],"
    r"[^{}]*?Datatype: (?P<dtype>[^,{}]*?)\s*[,}]"
)


class EngineTensor(msgspec.Struct, frozen=True):
    """An input or output of a layer. `dtype` uses the builder's names (Half, BFloat16, Float); -1 is a dynamic size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class EngineLayer(msgspec.Struct, frozen=True):
    """One layer as executed: a kernel, or several fused layers. Its constants are among the inputs."""

    name: str
    kind: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]


def layers_of_engine(bundle: Bundle, graph: GraphName) -> tuple[EngineLayer, ...]:
    """Return the layers of one engine, in the order of execution.

    Raises BundleError for a bundle without engines, and PlumeExportError if the builder saved no list and there is no GPU.
    """
    backend = bundle.manifest.backend
    if backend not in ("tensorrt", "tensorrt-rtx"):
        raise BundleError(
            f"{bundle.path} has no engines; its backend is {backend}.",
            fix="pass a bundle that plume-export compile built for a target with engines (see plume-export targets)",
        )
    listed = layers_file(graph)
    if listed in bundle.manifest.files:
        return msgspec.json.decode(bundle.file(listed).read_bytes(), type=tuple[EngineLayer, ...])
    return layers_by_inspector(import_runtime(backend), bundle.checked_graph_file(graph))


def layers_file(graph: GraphName) -> str:
    """Return the name of the file that lists the layers of a graph's engine."""
    return f"{graph}.layers.json"


def layers_by_inspector(variant: Variant, file: Path) -> tuple[EngineLayer, ...]:
    """Load an engine onto the GPU and return the layers that the inspector reports.

    Source: IRuntime.deserialize_cuda_engine, ICudaEngine.create_engine_inspector. Raises PlumeExportError if it cannot be
    loaded.
    """
    trt, log = variant.trt, new_log(variant)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        engine = trt.Runtime(log).deserialize_cuda_engine(memoryview(mapped))
    if engine is None:
        raise PlumeExportError(
            f"{variant.name} {variant.version} cannot load {file.name} to list its layers: {reasons_in(log.lines)}.",
            fix="run this on a machine with the engine's GPU (see plume-export doctor)",
        )
    text: str = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_from_inspector(text)


def layers_from_log(text: str) -> tuple[EngineLayer, ...]:
    """Parse the list in a builder's log. Lines that do not describe a layer are skipped."""
    return tuple(_layer_from_line(match) for match in _LAYER.finditer(text))


def layers_from_inspector(text: str) -> tuple[EngineLayer, ...]:
    """Parse the inspector's JSON of a whole engine. Raises PlumeExportError if it contains only names."""
    layers = msgspec.json.decode(text)["Layers"]
    if any(isinstance(layer, str) for layer in layers):
        raise PlumeExportError(
            "The engine reports only the names of its layers.", fix="compile the bundle again with this version of plume-export"
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
    """Return the distinct dtypes that a layer writes, in order."""
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
