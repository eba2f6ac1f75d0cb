"""Graphs of the test checkpoints as they were traced, so that tests do not wait for the tracer.

    python -m tests.traced_graphs

writes them anew into tests/traced/. A file's name holds a hash of what a trace depends on, except for the versions of the
tracer: the model, the precision and the code of plume_export/graphs. A graph that is not there is traced and kept in
pytest's cache. test_traced_graphs.py traces some of them with the installed tracer and compares.
"""

import hashlib
import io
import lzma
import os
import shutil
import tempfile
import tokenize
from collections.abc import Callable, Collection
from importlib.metadata import version
from pathlib import Path

import click
import msgspec
import onnx
import onnx_ir as ir

import plume_export.graphs
from plume_export.checkpoint import write_random_checkpoint
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.portable_bundle import trace_model_graph
from plume_export.samples import PLUME_TINY
from plume_export.spec import GraphName, ModelSpec, Precision, graph_specs

TRACED = Path(__file__).parent / "traced"
TRACERS = ("torch", "onnxscript", "onnx-ir")

_GOLDEN = Path(__file__).parent / "golden" / "checkpoint"
_NO_DATA = "not there"  # the external file of a parameter whose data is still to be written

Trace = Callable[[GraphName, ModelSpec, Precision, Collection[str]], ir.Model]


def cache_name(versions: Collection[str] = TRACERS) -> str:
    """Return the name of a cache that only these versions of the tracer fill."""
    return "-".join(["traced", *(package + version(package) for package in versions)])


def kept_traces(cache: Path) -> Trace:
    """Return `trace_model_graph` that reads what was traced before, from tests/traced or the cache."""

    def trace(name: GraphName, model: ModelSpec, precision: Precision, float32_layers: Collection[str] = ()) -> ir.Model:
        file = _file_name(name, model, precision, float32_layers)
        for directory in (TRACED, cache):
            if (directory / file).is_file():
                return _read(directory / file)
        graph = trace_model_graph(name, model, precision, float32_layers)
        _write(graph, cache / file)
        return graph

    return trace


def _file_name(name: GraphName, model: ModelSpec, precision: Precision, float32_layers: Collection[str]) -> str:
    sources = sorted(Path(plume_export.graphs.__path__[0]).glob("*.py"))
    spec = graph_specs(model, precision)[name]
    depends_on = [
        msgspec.json.encode([model, spec, precision, sorted(float32_layers)]),
        *(code_of(source.read_text()) for source in sources if source.stem != "weights"),
    ]
    digest = hashlib.sha256(b"".join(depends_on)).hexdigest()
    return f"{name}-{digest[:16]}.onnx.xz"


def code_of(source: str) -> bytes:
    """Return a module's tokens without comments, docstrings and white space."""
    code, before = [], tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
            if not is_docstring:
                code.append(token.string)
    return "".join("".join(code).split()).encode()


def _write(graph: ir.Model, file: Path) -> None:
    """Write by way of another file: several processes may trace one graph at once."""
    graph = graph.clone()
    for name, value in graph.graph.initializers.items():
        if value.const_value is None:
            assert value.dtype is not None
            assert value.shape is not None
            value.const_value = ir.ExternalTensor(_NO_DATA, 0, 0, value.dtype, shape=value.shape, name=name)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_bytes(lzma.compress(ir.to_proto(graph).SerializeToString()))
    partial.replace(file)


def _read(file: Path) -> ir.Model:
    graph = ir.from_proto(onnx.load_model_from_string(lzma.decompress(file.read_bytes())))
    for value in graph.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None
    return graph


def main() -> None:
    shutil.rmtree(TRACED, ignore_errors=True)
    TRACED.mkdir()
    trace = kept_traces(TRACED)
    with tempfile.TemporaryDirectory() as scratch:
        write_random_checkpoint(Path(scratch) / "tiny", "tiny", seed=0)
        precisions: dict[str, tuple[Precision, ...]] = {
            str(Path(scratch) / "tiny"): ("fp32", "fp16", "bf16"),
            PLUME_TINY: ("fp32", "fp16", "bf16"),
            str(_GOLDEN): ("fp32",),
        }
        for checkpoint, wanted in precisions.items():
            model = open_checkpoint(checkpoint, ModelOptions()).model
            for precision in wanted:
                for name in graph_specs(model, precision):
                    trace(name, model, precision, ())
                    click.echo(f"{checkpoint} {precision} {name}")


if __name__ == "__main__":
    main()
