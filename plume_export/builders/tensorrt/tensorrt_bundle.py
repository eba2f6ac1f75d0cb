"""Compile a portable bundle to TensorRT engines: one process per graph, one graph at a time."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from ...bundle import (
    WEIGHTS,
    Bundle,
    EngineEntry,
    EngineManifest,
    copy_file,
    move_file,
    new_bundle,
    open_written,
    read_constants,
    write_manifest,
)
from ...errors import BundleError, PlumeExportError
from ...machine.tensorrt_variant import Variant, device_of, import_variant
from ...progress import Report
from ...recipe import AxisRange, BuilderSettings, Recipe, check_recipe_fits_model, model_scaled_to
from ...spec import GraphName, GraphSpec, TensorSpec
from ...whole_file import check_replaceable
from .audit import check_engine, copied_weight_bytes
from .engine import EngineRequest, EngineResult, Message, Progress
from .engine_layers import layers_file
from .graph_weights import GraphWeights, duplicate_bytes, weights_of_graph, write_graph_with_shared_weights
from .network import AxisRanges, axis_ranges

# Reports which graph is being built and the progress of the builder's current phase.
BuildProgress = Callable[[GraphName, Progress], None]
_STDERR_TAIL = 2000


@dataclass(frozen=True)
class _Compilation:
    """One compilation and its output directory. `ranges` has every dynamic axis."""

    source: Bundle
    directory: Path
    variant: Variant
    recipe: Recipe
    ranges: AxisRanges

    @property
    def is_shared(self) -> bool:
        """Whether the large weights are inputs of the engines."""
        return self.recipe.weights == "shared"


@dataclass(frozen=True)
class _BuiltGraph:
    entry: EngineEntry
    weights: GraphWeights


def compile_for_tensorrt(
    source: Bundle,
    output: Path,
    target: str,
    recipe: Recipe,
    *,
    is_source_kept: bool = True,
    progress: BuildProgress = lambda *_: None,
    report: Report = lambda _: None,
) -> Bundle:
    """Write a bundle of engines. Baked engines contain their weights; shared ones read the bundle's weight file.

    Raises BundleError for a bundle that is not portable. Raises PlumeExportError for a recipe whose shapes exceed the model's
    limits, for anything that the builder refuses, for a builder that was killed, and for an engine that fails its audit.
    """
    manifest = source.manifest
    _check_portable(source)
    _check_shareable(source, recipe)
    assert recipe.backend == "tensorrt" or recipe.backend == "tensorrt-rtx"
    variant = import_variant(recipe.backend)
    model = model_scaled_to(recipe, manifest.model, target)
    ranges = _ranges_of(source, recipe, target)
    with new_bundle(output, report) as directory:
        compilation = _Compilation(source, directory, variant, recipe, ranges)
        _bring_files(compilation, copy_file if is_source_kept else move_file)
        built = {graph: _build_graph(compilation, graph, partial(progress, graph)) for graph in manifest.graphs}
        source.check_not_replaced()
        engines = EngineManifest(
            flavour_version=variant.version,
            device=device_of(variant),
            target=Path(target).stem,
            recipe=recipe,
            source_sha256=source.sha256,
            graphs={graph: one.entry for graph, one in built.items()},
            duplicate_bytes=duplicate_bytes(one.weights for one in built.values()),
        )
        compiled = msgspec.structs.replace(
            manifest, backend=variant.name, model=model, engines=engines, limits=recipe.limits, files={}
        )
        write_manifest(directory, compiled)
    return open_written(output)


def _check_portable(source: Bundle) -> None:
    if source.manifest.backend != "onnx":
        raise BundleError(
            f"{source.path} is already compiled for {source.manifest.backend}.",
            fix="pass the bundle written by plume-export export",
        )


def _check_shareable(source: Bundle, recipe: Recipe) -> None:
    """Raise if a weight-only precision would be shared: TensorRT-RTX would reformat whole weights in every run."""
    quantisation = source.manifest.quantisation
    weight_only = [] if quantisation is None else [name for name, scheme in quantisation.graphs.items() if scheme != "int8"]
    if recipe.weights == "shared" and weight_only:
        raise PlumeExportError(
            f"The engines cannot share the weights of {source.path}: {', '.join(weight_only)} would need scratch "
            "memory for a full copy, reformatted in every run.",
            fix='use weights = "baked" in the recipe, or a bundle in int8 or fp16',
        )


def _ranges_of(source: Bundle, recipe: Recipe, target: str) -> AxisRanges:
    """Return the ranges of the recipe. Raises PlumeExportError if they exceed the model's limits."""
    model = source.manifest.model
    suffix_tokens = len(read_constants(source.path, model).suffix_embeddings)
    check_recipe_fits_model(recipe, model, suffix_tokens, target)
    return axis_ranges(recipe.limits, model, suffix_tokens)


def _bring_files(compilation: _Compilation, bring: Callable[[Path, Path], None]) -> None:
    """Copy or move all files except the graphs. The weights are included only if the engines share them."""
    for name in compilation.source.manifest.files:
        if (compilation.is_shared or name != WEIGHTS) and not name.endswith(".onnx"):
            bring(compilation.source.file(name), compilation.directory / name)


def _build_graph(compilation: _Compilation, graph: GraphName, progress: Callable[[Progress], None]) -> _BuiltGraph:
    """Build and audit one engine. Write it with the list of its layers."""
    spec = compilation.source.manifest.graphs[graph]
    onnx_file = compilation.source.checked_graph_file(graph)
    shared: tuple[TensorSpec, ...] = ()
    if compilation.is_shared:
        onnx_file = compilation.directory / f"{graph}.onnx"
        shared = write_graph_with_shared_weights(compilation.source.checked_graph_file(graph), onnx_file)
    request = EngineRequest(
        variant=compilation.variant.name,
        onnx_file=str(onnx_file),
        engine_file=str(compilation.directory / f"{graph}.engine"),
        timing_cache_file=timing_cache_file(compilation.variant),
        precision=compilation.source.manifest.precision,
        float32_layers=tuple(compilation.source.manifest.float32_layers),
        spec=GraphSpec(inputs=spec.inputs + shared, outputs=spec.outputs),
        axis_ranges=_ranges_of_graph(compilation, graph),
        builder=compilation.recipe.builder or BuilderSettings(),
    )
    result = build_in_child(request, progress)
    weights = weights_of_graph(onnx_file)
    if compilation.is_shared:
        onnx_file.unlink()
    if result.layers is not None:
        (compilation.directory / layers_file(graph)).write_bytes(msgspec.json.encode(result.layers))
    entry = _entry(result, spec, shared, weights)
    check_engine(graph, entry)
    return _BuiltGraph(entry, weights)


def _ranges_of_graph(compilation: _Compilation, graph: GraphName) -> dict[str, AxisRange]:
    """Return the ranges of a graph. Shared weights need more than one prompt: else the experts are copied in every run."""
    ranges = dict(compilation.ranges)
    if compilation.is_shared and graph == "latent_step":
        batch = ranges["batch"]
        ranges["batch"] = batch._replace(max=max(2, batch.max))
    return ranges


def timing_cache_file(variant: Variant) -> str | None:
    """Return the path of the timing cache for later builds; None for TensorRT-RTX, which measures nothing when it builds.

    Raises PlumeExportError if the path is a symbolic link, before the build takes minutes.
    """
    if variant.name == "tensorrt-rtx":
        return None
    from platformdirs import user_cache_path

    directory = user_cache_path("plume-export", appauthor=False)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"timings-tensorrt-{variant.version}"
    check_replaceable(file)
    return str(file)


def build_in_child(request: EngineRequest, progress: Callable[[Progress], None]) -> EngineResult:
    """Build one engine in a separate process and return its sizes.

    Raises PlumeExportError with the builder's reason, or if the process was killed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "request.json"
        file.write_bytes(msgspec.json.encode(request))
        with (Path(scratch) / "stderr").open("w+b") as stderr:
            command = [sys.executable, "-m", f"{__package__}.engine", str(file)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
            assert process.stdout is not None
            result: EngineResult | None = None
            failed: Message | None = None
            try:
                for line in process.stdout:
                    message = msgspec.json.decode(line, type=Message)
                    if message.progress is not None:
                        progress(message.progress)
                    elif message.result is not None:
                        result = message.result
                    else:
                        failed = message
            except BaseException:
                process.kill()
                raise
            finally:
                process.wait()
            stderr.seek(0)
            tail = stderr.read()[-_STDERR_TAIL:].decode(errors="replace").strip()
    if failed is not None:
        raise PlumeExportError(f"{Path(request.onnx_file).name}: {failed.error}", fix=failed.fix)
    if process.returncode != 0 or result is None:
        raise _died(request, process.returncode, tail)
    return result


def _died(request: EngineRequest, code: int, tail: str) -> PlumeExportError:
    name = Path(request.onnx_file).name
    if code == -signal.SIGKILL:
        return PlumeExportError(
            f"The process that built {name} was killed, most likely because memory ran out.",
            fix="compile on a machine with more free memory, or lower the ranges of the recipe",
        )
    return PlumeExportError(
        f"The process that built {name} exited with code {code}: {tail or 'it printed nothing'}", fix="see the output above"
    )


def _entry(result: EngineResult, spec: GraphSpec, shared: tuple[TensorSpec, ...], weights: GraphWeights) -> EngineEntry:
    figures, layers = result.figures, result.layers
    activations = [tensor.name for tensor in spec.inputs]
    return EngineEntry(
        bytes=result.engine_bytes,
        weights_bytes=figures.weights_bytes,
        activation_bytes=figures.activation_bytes,
        profile=result.profile,
        shared_weights=tuple(tensor.name for tensor in shared),
        build_seconds=round(result.seconds, 3),
        build_peak_memory_bytes=result.peak_memory_bytes,
        layers=None if layers is None else len(layers),
        initializer_bytes=weights.bytes,
        copied_weight_bytes=None if layers is None else copied_weight_bytes(layers, activations),
    )
