"""Graphs that no export wrote: refused with the graph's name and what was expected, and nothing is left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from plume_export.builders.onnxruntime.source_graph import expecting_exported
from plume_export.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from plume_export.cli import main
from plume_export.errors import BundleError, PlumeExportError
from plume_export.pipeline import compile_bundle
from plume_export.recipe import read_target
from plume_export.spec import GraphName
from tests.onnx_text import graph_from_text

Edit = Callable[[onnx.GraphProto], object]


def drop_operator(op_type: str) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        graph.node.remove(next(node for node in graph.node if node.op_type == op_type))

    return edit


def drop(field: str, name: str) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        values = getattr(graph, field)
        values.remove(next(value for value in values if value.name == name))

    return edit


def replace_operator(op_type: str, by: str) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == op_type:
                node.op_type = by

    return edit


def retype_input(name: str) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        value = next(value for value in graph.input if value.name == name)
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16

    return edit


def flatten_input(name: str) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        value = next(value for value in graph.input if value.name == name)
        del value.type.tensor_type.shape.dim[-1]

    return edit


def drop_weights(graph: onnx.GraphProto) -> None:
    del graph.initializer[:]


# The graph, what is done to it, and what the error says.
CASES: dict[str, tuple[GraphName, Edit, str]] = {
    "no softmax": ("prefill", replace_operator("Softmax", "LogSoftmax"), "0 subgraphs match GroupQueryAttention, expected"),
    "no expansion of heads": ("prefill", replace_operator("Expand", "Tile"), "0 subgraphs match GroupQueryAttention"),
    "no norm": (
        "latent_step",
        replace_operator("Reciprocal", "Neg"),
        "0 subgraphs match SimplifiedLayerNormalization",
    ),
    "a norm short": ("latent_step", drop_operator("Reciprocal"), "not computed by any node"),
    "a rotation short": ("vision_encoder", drop_operator("Split"), "not computed by any node"),
    "no input": (
        "prefill",
        drop("input", "input_ids"),
        "the input input_ids is missing; expected int64 [batch, tokens] from the manifest",
    ),
    "no output": ("latent_step", drop("output", "step_keys"), "the output step_keys is missing"),
    "another dtype": ("vision_encoder", retype_input("patches"), "the input patches is FLOAT16 [frames, patches, 1176]"),
    "another rank": ("prefill", flatten_input("position_ids"), "the input position_ids is INT64 [3, batch]"),
    "no weights": ("prefill", drop_weights, "is not an input, not a weight and not computed by any node"),
}


def altered(source: Bundle, directory: Path, name: GraphName, edit: Edit) -> Bundle:
    """Return a copy whose manifest has the hash of the altered graph."""
    shutil.copytree(source.path, directory)
    model = onnx.load(directory / f"{name}.onnx", load_external_data=False)
    edit(model.graph)
    onnx.save(model, directory / f"{name}.onnx")
    (directory / MANIFEST).unlink()
    write_manifest(directory, source.manifest)
    return open_bundle(directory)


@pytest.mark.parametrize("case", CASES)
def test_an_altered_graph_is_named(tiny_fp32: Bundle, tmp_path: Path, case: str) -> None:
    name, edit, text = CASES[case]
    bundle = altered(tiny_fp32, tmp_path / "bundle", name, edit)
    with pytest.raises(PlumeExportError) as raised:
        compile_bundle(bundle, tmp_path / "compiled", read_target("cpu"))
    assert f"{name}.onnx" in raised.value.message
    assert text in raised.value.message
    assert raised.value.fix is not None
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_the_command_names_it_too(tiny_fp32: Bundle, tmp_path: Path) -> None:
    name, edit, _ = CASES["no expansion of heads"]
    altered(tiny_fp32, tmp_path / "bundle", name, edit)
    arguments = ["compile", str(tmp_path / "bundle"), "--target", "cpu", "-o", str(tmp_path / "compiled")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"{tmp_path / 'bundle' / 'prefill.onnx'} is not the graph that plume-export export writes" in result.stderr
    assert "internal error" not in result.stderr


class Stumble(ir.passes.InPlacePass):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        raise self._error


def run_pass(error: BaseException, *, is_alone: bool) -> None:
    """Raise an error from a pass: alone, or in a sequence, which wraps an error of its own around it."""
    stumble = Stumble(error)
    (stumble if is_alone else ir.passes.Sequential(stumble))(graph_from_text("nothing () => () {}"))


@pytest.mark.parametrize("is_alone", [True, False])
def test_only_what_a_pass_stumbles_over_is_of_the_graph(tmp_path: Path, is_alone: bool) -> None:
    for error in (PlumeExportError("a"), OSError(28, "No space left on device"), MemoryError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, expecting_exported(tmp_path / "prefill.onnx"):
            run_pass(error, is_alone=is_alone)
        assert raised.value is error
    for stumbled in (AssertionError(), KeyError("x"), IndexError("out of range"), RecursionError()):
        refusal = pytest.raises(BundleError, match=r"prefill\.onnx is not the graph")
        with refusal as refused, expecting_exported(tmp_path / "prefill.onnx"):
            run_pass(stumbled, is_alone=is_alone)
        assert refused.value.__cause__ is stumbled
