"""Let ONNX Runtime's sessions of prefill and latent_step share one prepacked copy of the decoder's weights.

By default every session copies the weights of matmuls into the layout that its kernels read, so two sessions over the same
weights hold them twice. Here the weights are prepacked once and appended to their file, and both sessions map them from there.

The layout depends on the CPU and on ONNX Runtime's version. Other CPUs use a different layout, hence a different hash. ONNX
Runtime then does not find the hash in the file and prepacks in memory, twice, with the same results. Source:
session.save_external_prepacked_constant_initializers of onnxruntime_session_options_config_keys.h (1.21 and newer).
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx

from ...bundle import WEIGHTS, Manifest
from ...errors import PlumeExportError
from ...machine.onnxruntime_module import import_onnxruntime
from ...runtime.onnxruntime_cpu import session_options
from ...spec import GraphName
from ...weight_file import FileRange, append_parts
from .compiled_weights import INLINE_BYTES

# The value of this key has the hash of the layout, its offset and its length. Matmul kernels have one such part.
_KEY = "prepacked_0"
_VALUE = re.compile(r"(?P<hash>[^|]+)\|(?P<offset>\d+);(?P<length>\d+)(?P<rest>;\d+)?")
# The tensor of the weight file that contains the layouts, after the last weight.
_TENSOR = "prepacked"


class _Prepacked(NamedTuple):
    """A weight's layout: its position in the file that ONNX Runtime saved, and its hash."""

    hash: str
    offset: int
    length: int
    rest: str


def share_prepacked_weights(directory: Path, manifest: Manifest, graphs: Sequence[GraphName]) -> None:
    """Append the layouts that all `graphs` of a directory agree on to its weight file, and reference them in the graphs.

    Temporarily takes up to five times the disk space of the weights. Raises MissingExtraError without ONNX Runtime, and
    PlumeExportError if ONNX Runtime fails.
    """
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        found = []
        for name in graphs:
            found.append(_prepacked(directory / f"{name}.onnx", Path(scratch) / name, manifest))
            if name != graphs[0]:  # the first graph's layouts are used
                (Path(scratch) / name / WEIGHTS).unlink(missing_ok=True)
        shared = {
            name: layout
            for name, layout in found[0].items()
            if all(name in other and other[name].hash == layout.hash for other in found[1:])
        }
        if not shared:
            return
        parts = [FileRange(layout.offset, layout.length) for layout in shared.values()]
        offsets, shift = append_parts(directory / WEIGHTS, _TENSOR, Path(scratch) / graphs[0] / WEIGHTS, parts)
    layouts = {name: (layout, offset) for (name, layout), offset in zip(shared.items(), offsets, strict=True)}
    for file in directory.glob("*.onnx"):
        _point_to(file, layouts, shift)


def _prepacked(graph_file: Path, scratch: Path, manifest: Manifest) -> dict[str, _Prepacked]:
    """Make ONNX Runtime save a graph with its layouts to a scratch directory. Return the layouts of tensors in the weight
    file.
    """
    scratch.mkdir()
    saved = scratch / graph_file.name
    _save_with_layouts(graph_file, saved, manifest)
    stored = {tensor.name for tensor in _load(graph_file).graph.initializer if _location(tensor) == WEIGHTS}
    layouts = {}
    for tensor in _load(saved).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        match = _VALUE.fullmatch(entries.get(_KEY, ""))
        if match and tensor.name in stored:
            layouts[tensor.name] = _Prepacked(match["hash"], int(match["offset"]), int(match["length"]), match["rest"] or "")
    return layouts


def _save_with_layouts(graph_file: Path, saved: Path, manifest: Manifest) -> None:
    onnxruntime = import_onnxruntime()
    options = session_options(manifest)
    options.optimized_model_filepath = str(saved)
    for name, value in {
        "save_external_prepacked_constant_initializers": "1",
        "optimized_model_external_initializers_file_name": WEIGHTS,
        "optimized_model_external_initializers_min_size_in_bytes": str(INLINE_BYTES),
    }.items():
        options.add_session_config_entry(f"session.{name}", value)
    try:
        onnxruntime.InferenceSession(str(graph_file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has one error class per error code
        raise PlumeExportError(
            f"ONNX Runtime could not prepack the weights of {graph_file.name}: {error}.",
            fix="if memory or the disk is full, free up to five times the bundle's size; otherwise try another "
            "version of onnxruntime",
        ) from error


def _point_to(graph_file: Path, layouts: Mapping[str, tuple[_Prepacked, int]], shift: int) -> None:
    """Update the offsets of a graph's tensors in the weight file, and reference the layouts of those that have one."""
    graph = _load(graph_file)
    for tensor in graph.graph.initializer:
        if _location(tensor) != WEIGHTS:
            continue
        entries = {entry.key: entry for entry in tensor.external_data}
        entries["offset"].value = str(int(entries["offset"].value) + shift)
        if tensor.name in layouts:
            layout, offset = layouts[tensor.name]
            tensor.external_data.add(key=_KEY, value=f"{layout.hash}|{offset};{layout.length}{layout.rest}")
    onnx.save(graph, graph_file)


def _load(graph_file: Path) -> onnx.ModelProto:
    return onnx.load(graph_file, load_external_data=False)


def _location(tensor: onnx.TensorProto) -> str | None:
    """Return the file that stores a tensor; None for the graph's own file."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
