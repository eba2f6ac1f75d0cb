"""Compile a portable bundle to TensorRT engines: one process a graph, one graph after another."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from ...bundle import (
    CONSTANTS,
    WEIGHTS,
    Bundle,
    EngineEntry,
    EngineManifest,
    copy_file,
    move_file,
    new_bundle,
    open_bundle,
    write_manifest,
)
from ...errors import BundleError, PlumeExportError
from ...recipe import Recipe, check_recipe_fits_model, model_scaled_to
from ...spec import GraphName
from .engine import EngineRequest, EngineResult, Message, Progress
from .flavour import PORTABLE, Flavour, import_flavour
from .network import axis_ranges
from .shared_weights import write_graph_with_shared_weights

# Tells which graph is being built and how far a phase of its builder is.
BuildProgress = Callable[[GraphName, Progress], None]
_STDERR_TAIL = 2000


def compile_for_tensorrt(
    source: Bundle,
    output: Path,
    target: str,
    recipe: Recipe,
    *,
    is_source_kept: bool = True,
    progress: BuildProgress = lambda *_: None,
) -> Bundle:
    """Write a bundle of engines. Baked engines hold their weights; shared ones take the weight file's, which comes along.

    Raises BundleError for a bundle that is not portable; PlumeExportError for a recipe that the model can not serve, for what
    the builder refuses, and for a builder that was killed.
    """
    manifest = source.manifest
    if manifest.backend != "onnx":
        raise BundleError(
            f"{source.path} is already compiled for {manifest.backend}.", fix="pass the bundle that plume-export export wrote"
        )
    assert recipe.backend == "tensorrt" or recipe.backend == "tensorrt-rtx"
    flavour = import_flavour(recipe.backend)
    model = model_scaled_to(recipe, manifest.model, target)
    with np.load(source.file(CONSTANTS)) as constants:
        suffix_tokens = len(constants["suffix_embeddings"])
    check_recipe_fits_model(recipe, manifest.model, suffix_tokens, target)
    ranges = dict(axis_ranges(recipe.shapes, manifest.model, suffix_tokens))
    entries: dict[GraphName, EngineEntry] = {}
    device = PORTABLE
    is_shared = recipe.weights == "shared"
    # Bound to shared weights, a step for one prompt alone re-lays the experts' weights in every pass (94 MB of the 2B's).
    least, best, most = ranges["batch"]
    step_ranges = ranges | {"batch": (least, best, max(2, most) if is_shared else most)}
    bring = copy_file if is_source_kept else move_file
    with new_bundle(output) as directory:
        for name in manifest.files:
            if (is_shared or name != WEIGHTS) and not name.endswith(".onnx"):
                bring(source.file(name), directory / name)
        for graph, spec in manifest.graphs.items():
            onnx_file = source.graph_file(graph)
            shared: tuple[str, ...] = ()
            if is_shared:
                onnx_file = directory / f"{graph}.onnx"
                shared = write_graph_with_shared_weights(source.graph_file(graph), onnx_file)
            request = EngineRequest(
                flavour=flavour.name,
                onnx_file=str(onnx_file),
                engine_file=str(directory / f"{graph}.engine"),
                timing_cache_file=timing_cache_file(flavour),
                precision=manifest.precision,
                spec=spec,
                axis_ranges=ranges if graph != "latent_step" else step_ranges,
                builder=recipe.builder,
            )
            result = build_in_child(request, partial(progress, graph))
            entries[graph], device = _entry(result, shared), result.device
            if is_shared:
                onnx_file.unlink()
        engines = EngineManifest(
            flavour_version=flavour.version,
            device=device,
            target=Path(target).stem,
            recipe=recipe,
            source_sha256=source.sha256,
            graphs=entries,
        )
        compiled = msgspec.structs.replace(manifest, backend=flavour.name, model=model, engines=engines, files={})
        write_manifest(directory, compiled)
    return open_bundle(output, verify_hashes=False)


def timing_cache_file(flavour: Flavour) -> str | None:
    """Return where measured timings are kept for the next build. TensorRT-RTX measures nothing when it builds."""
    if flavour.name == "tensorrt-rtx":
        return None
    from platformdirs import user_cache_path

    directory = user_cache_path("plume-export", appauthor=False)
    directory.mkdir(parents=True, exist_ok=True)
    return str(directory / f"timings-tensorrt-{flavour.version}")


def build_in_child(request: EngineRequest, progress: Callable[[Progress], None]) -> EngineResult:
    """Build one engine in a process of its own and return its figures.

    Raises PlumeExportError with the builder's reason, or saying that the process was killed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "request.json"
        file.write_bytes(msgspec.json.encode(request))
        with (Path(scratch) / "stderr").open("w+b") as stderr:
            command = [sys.executable, "-m", f"{__package__}.engine", str(file)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
            assert process.stdout is not None
            result, error = None, None
            try:
                for line in process.stdout:
                    message = msgspec.json.decode(line, type=Message)
                    result, error = message.result or result, message.error or error
                    if message.progress is not None:
                        progress(message.progress)
            except BaseException:
                process.kill()
                raise
            finally:
                process.wait()
            stderr.seek(0)
            tail = stderr.read()[-_STDERR_TAIL:].decode(errors="replace").strip()
    if error is not None:
        raise PlumeExportError(f"{Path(request.onnx_file).name}: {error}")
    if process.returncode != 0 or result is None:
        raise _died(request, process.returncode, tail)
    return result


def _died(request: EngineRequest, code: int, tail: str) -> PlumeExportError:
    name = Path(request.onnx_file).name
    if code == -signal.SIGKILL:
        return PlumeExportError(
            f"The process that built {name} was killed, most likely for want of memory.",
            fix="compile where more memory is free, or lower the ranges of the recipe",
        )
    return PlumeExportError(
        f"The process that built {name} ended with code {code}: {tail or 'it said nothing'}", fix="see above"
    )


def _entry(result: EngineResult, shared_weights: tuple[str, ...]) -> EngineEntry:
    figures = result.figures
    return EngineEntry(
        bytes=result.engine_bytes,
        weights_bytes=figures.weights_bytes,
        activation_bytes=figures.activation_bytes,
        profile=result.profile,
        shared_weights=shared_weights,
        build_seconds=round(result.seconds, 3),
        build_peak_memory_bytes=result.peak_memory_bytes,
    )
