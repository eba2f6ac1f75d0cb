"""Build one engine, in a separate process that tensorrt_bundle.py starts: python -m ....engine REQUEST.json

The request is a file; progress, result and errors go to standard output as JSON lines.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from ...errors import PlumeExportError
from ...machine.resident_memory import resident_memory
from ...machine.tensorrt_log import LogFigures, figures_from_lines, layer_list_in, new_log, reasons_in
from ...machine.tensorrt_variant import Variant, VariantName, import_variant
from ...recipe import AxisRange, BuilderSettings
from ...spec import GraphSpec, Precision
from ...whole_file import replacing
from .engine_layers import EngineLayer, layers_from_log
from .network import add_profile, check_inputs_and_outputs, check_layer_dtypes, network_from_onnx


class EngineRequest(msgspec.Struct, frozen=True):
    """Everything that a build needs. `axis_ranges` has every dynamic axis; weights that are inputs are in `spec`."""

    variant: VariantName
    onnx_file: str
    engine_file: str
    timing_cache_file: str | None
    precision: Precision
    spec: GraphSpec
    axis_ranges: dict[str, AxisRange]
    builder: BuilderSettings
    float32_layers: tuple[str, ...] = ()


class EngineResult(msgspec.Struct, frozen=True):
    """A finished engine, with the sizes that the builder reported. `layers` is None if they were not reported."""

    engine_bytes: int
    figures: LogFigures
    layers: tuple[EngineLayer, ...] | None
    profile: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    seconds: float
    peak_memory_bytes: int


class Progress(msgspec.Struct, frozen=True):
    """A step of a phase of the builder. Phases may be nested."""

    phase: str
    done: int
    steps: int


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from the build process: exactly one of progress, result and error (with its fix)."""

    progress: Progress | None = None
    result: EngineResult | None = None
    error: str | None = None
    fix: str | None = None


def build_engine(request: EngineRequest, tell: Any) -> EngineResult:
    """Parse, check, build and write one engine. Raises PlumeExportError for anything that the parser or the builder refuses."""
    start = time.monotonic()
    variant = import_variant(request.variant)
    log = new_log(variant)
    builder = _new_builder(variant, log)
    network, parser = network_from_onnx(variant, builder, log, Path(request.onnx_file))
    check_inputs_and_outputs(variant, network, request.spec)
    check_layer_dtypes(variant, network, request.precision, request.float32_layers)
    config = _new_config(variant, builder, request.builder, tell)
    profile = add_profile(builder, config, request.spec, request.axis_ranges)
    cache = _set_timing_cache(config, request.timing_cache_file)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reasons = reasons_in(log.lines)
        raise PlumeExportError(
            f"{variant.name} {variant.version} could not build the engine: {reasons}.", fix="see the reason above"
        )
    del parser
    with open(request.engine_file, "wb") as file:
        file.write(memoryview(engine))
    if request.timing_cache_file is not None and cache is not None:
        with replacing(Path(request.timing_cache_file)) as file:
            file.write(memoryview(cache.serialize()))
    layers = layer_list_in(log.lines)
    return EngineResult(
        engine_bytes=engine.nbytes,
        figures=figures_from_lines(log.lines),
        layers=None if layers is None else layers_from_log(layers),
        profile=profile,
        seconds=time.monotonic() - start,
        peak_memory_bytes=resident_memory().peak,
    )


def _new_builder(variant: Variant, log: Any) -> Any:
    try:
        return variant.trt.Builder(log)
    except TypeError:  # the Python binding raises TypeError if the library finds no GPU or driver
        reasons = reasons_in(log.lines)
        raise PlumeExportError(
            f"{variant.name} {variant.version} found no GPU to build for: {reasons}.",
            fix="export here, copy the portable bundle, and run `plume-export compile` on the device that will run the engines",
        ) from None


def _new_config(variant: Variant, builder: Any, settings: BuilderSettings, tell: Any) -> Any:
    """Return a configuration. Detailed verbosity lists every layer with its tensors, at no cost on the device."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(variant.trt.MemoryPoolType.WORKSPACE, settings.workspace_mb << 20)
    config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = variant.trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = _new_monitor(variant.trt, tell)
    return config


def _set_timing_cache(config: Any, file: str | None) -> Any:
    """Attach the timing cache to the builder, which reads and extends it.

    A cache of another TensorRT version or device is replaced by an empty one.
    """
    if file is None:
        return None
    known = Path(file).read_bytes() if Path(file).is_file() else b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _new_monitor(trt: Any, tell: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            tell(Message(progress=Progress(phase_name, 0, num_steps)))

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(Message(progress=Progress(phase_name, step + 1, self._steps.get(phase_name, 0))))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            tell(Message(progress=Progress(phase_name, steps, steps)))

    return Monitor()


def main() -> None:
    """Build the engine that the request file describes. Exit with 0 on success, 1 on an error."""

    # Output of libraries goes to standard error, because standard output carries the messages.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def tell(message: Message) -> None:
        messages.write(msgspec.json.encode(message) + b"\n")
        messages.flush()

    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=EngineRequest)
    try:
        tell(Message(result=build_engine(request, tell)))
    except PlumeExportError as error:
        tell(Message(error=error.message, fix=error.command_line_fix))
        sys.exit(1)


if __name__ == "__main__":
    main()
