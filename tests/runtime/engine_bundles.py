"""Bundles of emulated engines: the portable graphs of a bundle, named by files that end in .engine."""

from pathlib import Path

import msgspec

from plume_export.builders.tensorrt.graph_weights import write_graph_with_shared_weights
from plume_export.builders.tensorrt.network import axis_ranges
from plume_export.bundle import WEIGHTS, Bundle, EngineEntry, EngineManifest, copy_file, open_bundle, write_manifest
from plume_export.recipe import AxisRange, Recipe, ShapeRanges, read_recipe
from plume_export.spec import GraphSpec

from .emulated_tensorrt import SCRATCH_BYTES, VERSION

SHAPES = ShapeRanges(AxisRange(1, 1, 4), AxisRange(16, 128, 700), AxisRange(4, 64, 512))


def write_engine_bundle(source: Bundle, directory: Path, *, is_shared: bool, device: str = "portable") -> Bundle:
    """Write a bundle for `emulated_tensorrt`; with shared weights its graphs take the large ones as inputs."""
    recipe = msgspec.structs.replace(read_recipe("rtx"), shapes=SHAPES, weights="shared" if is_shared else "baked")
    directory.mkdir()
    graphs = directory.with_name(f"{directory.name}-graphs")
    graphs.mkdir()
    copy_file(source.file(WEIGHTS), graphs / WEIGHTS)
    entries = {}
    for name, spec in source.manifest.graphs.items():
        shared: tuple[str, ...] = ()
        if is_shared:
            inputs = write_graph_with_shared_weights(source.graph_file(name), graphs / f"{name}.onnx")
            shared = tuple(tensor.name for tensor in inputs)
        else:
            copy_file(source.graph_file(name), graphs / f"{name}.onnx")
        (directory / f"{name}.engine").write_text(f"{name}\n{graphs / name}.onnx")
        entries[name] = EngineEntry(
            bytes=(directory / f"{name}.engine").stat().st_size,
            weights_bytes=None,
            activation_bytes=SCRATCH_BYTES,
            profile=profile_of(spec, source, recipe),
            shared_weights=shared,
            build_seconds=0.0,
            build_peak_memory_bytes=None,
        )
    for name in source.manifest.files:
        if not name.endswith(".onnx") and (is_shared or name != WEIGHTS):
            copy_file(source.file(name), directory / name)
    engines = EngineManifest(
        flavour_version=VERSION, device=device, target="emulated", recipe=recipe, source_sha256=source.sha256, graphs=entries
    )
    manifest = msgspec.structs.replace(source.manifest, backend="tensorrt-rtx", engines=engines, limits=recipe.limits, files={})
    write_manifest(directory, manifest)
    return open_bundle(directory)


def profile_of(spec: GraphSpec, source: Bundle, recipe: Recipe) -> dict[str, tuple[tuple[int, ...], ...]]:
    ranges = axis_ranges(recipe.limits, source.manifest.model, 8)
    return {
        tensor.name: tuple(
            tuple(axis if isinstance(axis, int) else ranges[axis][which] for axis in tensor.axes) for which in range(3)
        )
        for tensor in spec.inputs
    }
