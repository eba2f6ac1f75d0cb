"""Graphs that are not what an export writes, compiled for a CPU. The manifest has their hashes, as a crafted bundle's would."""

import shutil
import tempfile
from pathlib import Path

import msgspec
import onnx
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.bundle import MANIFEST, open_bundle, write_manifest
from plume_export.bundle.bundle import read_manifest
from plume_export.pipeline import ExportOptions, ModelOptions, compile_bundle, export_checkpoint, open_checkpoint
from plume_export.recipe import read_target

from ..mutation import mutated
from ..sample_bundle import GOLDEN_CHECKPOINT
from ..surface import Files, Surface
from .checkpoints import SMALLEST_MODEL, write_sharded_checkpoint

_GRAPHS = ("prefill", "latent_step")
# Two layers: the last one of prefill has an attention of its own.
_MODEL = msgspec.structs.replace(SMALLEST_MODEL, decoder=msgspec.structs.replace(SMALLEST_MODEL.decoder, layers=2))
_OPERATORS = ("Add", "Mul", "Identity", "Transpose", "MatMul", "Softmax", "Cast", "Concat", "Reciprocal", "Where", "None")


def _write(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as checkpoint:
        write_sharded_checkpoint(Path(checkpoint), _MODEL)
        shutil.copyfile(GOLDEN_CHECKPOINT / "tokenizer_config.json", Path(checkpoint) / "tokenizer_config.json")
        options = ExportOptions("fp32", modalities="text", selftest_inputs=None, guards_range=False)
        export_checkpoint(open_checkpoint(checkpoint, ModelOptions()), directory / "bundle", options, lambda _: None)


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    seeds = {name: (directory / "bundle" / f"{name}.onnx").read_bytes() for name in _GRAPHS}

    @st.composite
    def draw(draw: DrawFn) -> Files:
        name = draw(st.sampled_from(_GRAPHS))
        is_bytes = draw(st.integers(0, 7)) == 0
        content = draw(mutated([seeds[name]], most_edits=2)) if is_bytes else draw(_edited_graph(seeds[name]))
        return {f"bundle/{name}.onnx": content}

    return draw()


@st.composite
def _edited_graph(draw: DrawFn, seed: bytes) -> bytes:
    model = onnx.load_model_from_string(seed)
    for _ in range(draw(st.integers(0, 2))):
        _EDITS[draw(st.integers(0, len(_EDITS) - 1))](draw, model.graph)
    return model.SerializeToString()


def _drop_one(draw: DrawFn, graph: onnx.GraphProto) -> None:
    """A node, an input, an output, an initializer, or what is known of a value."""
    field = draw(st.sampled_from(("node", "node", "input", "output", "initializer", "value_info")))
    of = getattr(graph, field)
    if of:
        del of[draw(st.integers(0, len(of) - 1))]


def _rename_output(draw: DrawFn, graph: onnx.GraphProto) -> None:
    draw(st.sampled_from(graph.output)).name = draw(st.sampled_from(["state", "x", ""]))


def _change_operator(draw: DrawFn, graph: onnx.GraphProto) -> None:
    draw(st.sampled_from(graph.node)).op_type = draw(st.sampled_from(_OPERATORS))


def _rewire(draw: DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(graph.node))
    if node.input:
        at = draw(st.integers(0, len(node.input) - 1))
        node.input[at] = draw(st.sampled_from([*(i.name for i in graph.input), *node.input, "", "nowhere"]))


def _resize_inputs(draw: DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(graph.node))
    if draw(st.booleans()) or not node.input:
        node.input.append(draw(st.sampled_from([*node.input, "", "nowhere"])))
    else:
        del node.input[-1]


def _change_type(draw: DrawFn, graph: onnx.GraphProto) -> None:
    kind = draw(st.integers(0, 2))
    if kind == 0:
        draw(st.sampled_from(graph.initializer)).data_type = draw(st.integers(0, 30))
        return
    value = draw(st.sampled_from([*graph.input, *graph.output]))
    tensor = value.type.tensor_type
    if kind == 1:
        tensor.elem_type = draw(st.integers(0, 24))
    elif tensor.shape.dim and draw(st.booleans()):
        del tensor.shape.dim[-1]
    else:
        tensor.shape.dim.add(dim_value=draw(st.integers(-1, 3)))


def _change_initializer(draw: DrawFn, graph: onnx.GraphProto) -> None:
    tensor = draw(st.sampled_from(graph.initializer))
    tensor.dims[:] = draw(st.lists(st.integers(0, 64), max_size=3))


def _change_attribute(draw: DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from([node for node in graph.node if node.attribute]))
    attribute = draw(st.sampled_from(node.attribute))
    if draw(st.booleans()):
        node.attribute.remove(attribute)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw(st.sampled_from([-1, 0, 1, 2, 7, 2**62]))
    else:
        attribute.type = draw(st.integers(0, 14))


_EDITS = (
    _drop_one,
    _drop_one,
    _rename_output,
    _change_operator,
    _rewire,
    _resize_inputs,
    _change_type,
    _change_initializer,
    _change_attribute,
)


def _read(directory: Path) -> None:
    source, output = directory / "bundle", directory / "compiled"
    manifest = read_manifest(source)
    (source / MANIFEST).unlink()
    write_manifest(source, manifest)
    try:
        compile_bundle(open_bundle(source), output, read_target("cpu"))
    finally:
        shutil.rmtree(output, ignore_errors=True)
    assert not [file for file in directory.iterdir() if file.name != "bundle"]


SURFACE = Surface("compiled-graphs", 1, _write, _cases, _read)
