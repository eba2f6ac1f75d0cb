"""The layers of a built engine: from the list that its builder left in the bundle, else by TensorRT's engine inspector."""

import mmap
from pathlib import Path

import msgspec

from ...bundle import Bundle
from ...errors import BundleError, PlumeExportError
from ...machine.flavour import Flavour, import_runtime
from ...machine.tensorrt_log import new_log, reasons_in
from ...spec import GraphName
from .layers import EngineLayer, layers_from_inspector


def layers_of_engine(bundle: Bundle, graph: GraphName) -> tuple[EngineLayer, ...]:
    """Return the layers of one engine, in the order in which they run.

    Raises BundleError for a bundle without engines; PlumeExportError where the builder left no list and there is no GPU.
    """
    backend = bundle.manifest.backend
    if backend not in ("tensorrt", "tensorrt-rtx"):
        raise BundleError(
            f"{bundle.path} has no engines; its backend is {backend}.",
            fix="pass a bundle that plume-export compile built for a target with engines (plume-export targets)",
        )
    listed = layers_file(graph)
    if listed in bundle.manifest.files:
        return msgspec.json.decode(bundle.file(listed).read_bytes(), type=tuple[EngineLayer, ...])
    return layers_by_inspector(import_runtime(backend), bundle.checked_graph_file(graph))


def layers_file(graph: GraphName) -> str:
    """The file of a bundle that lists the layers of a graph's engine."""
    return f"{graph}.layers.json"


def layers_by_inspector(flavour: Flavour, file: Path) -> tuple[EngineLayer, ...]:
    """Load an engine onto the GPU and return what the inspector says of it.

    Source: IRuntime.deserialize_cuda_engine, ICudaEngine.create_engine_inspector. Raises PlumeExportError if it does not load.
    """
    trt, log = flavour.trt, new_log(flavour)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        engine = trt.Runtime(log).deserialize_cuda_engine(memoryview(mapped))
    if engine is None:
        raise PlumeExportError(
            f"{flavour.name} {flavour.version} cannot load {file.name} to list its layers: {reasons_in(log.lines)}.",
            fix="run this where the engine runs: on a machine with its GPU (plume-export doctor)",
        )
    text: str = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_from_inspector(text)
