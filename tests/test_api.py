"""`export`, `compile` and `build` from Python: the command line's defaults, and its errors before any work."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pytest

import plume_export
from plume_export import api, pipeline
from plume_export.bundle import Bundle
from plume_export.cli.build import build as build_command
from plume_export.cli.build import export as export_command
from plume_export.samples import PLUME_TINY
from plume_export.spec import PLUME_2B

from .bundle.small_bundle import write_small_bundle

FUNCTIONS = (plume_export.build, plume_export.compile, plume_export.export)


@pytest.mark.slow
def test_checkpoint_to_embedding(tmp_path: Path) -> None:
    steps: list[str] = []
    exported = plume_export.export(PLUME_TINY, tmp_path / "onnx", precision="fp32", selftest=False, report=steps.append)
    compiled = plume_export.compile(exported, tmp_path / "cpu", target="cpu")
    assert isinstance(plume_export.open_bundle(tmp_path / "cpu"), Bundle)
    assert compiled.manifest.backend == "onnxruntime"
    with plume_export.Embedder(compiled) as embedder:
        vector = embedder.encode("two large cyan stars")
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert steps


@pytest.mark.parametrize("precision", ["fp8", "int8,fp16", ""])
def test_a_wrong_precision_is_found_before_the_checkpoint_is_opened(tmp_path: Path, precision: str) -> None:
    with pytest.raises(plume_export.PlumeExportError, match="precision"):
        plume_export.export("no such checkpoint", tmp_path / "out", precision=precision)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_no_bundle_stays(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    for make in (plume_export.export, plume_export.build):
        with pytest.raises(plume_export.PlumeExportError, match=r"index\.html|not a bundle"):
            make(PLUME_TINY, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text() == "mine"


@pytest.mark.parametrize("name", ["build", "compile"])
def test_recipe_is_read_and_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    read, checked = list[str](), list[str]()
    decode = msgspec.toml.decode

    def compile_for_cpu(_source: Bundle, output: Path, *, target: str, **_: object) -> Bundle:
        assert target == "cpu"
        return plume_export.open_bundle(write_small_bundle(output))

    def count_read(data: bytes, *, type: Any) -> Any:
        read.append("a recipe")
        return decode(data, type=type)

    monkeypatch.setattr(msgspec.toml, "decode", count_read)
    monkeypatch.setattr(pipeline, "import_onnxruntime", lambda: checked.append("ONNX Runtime"))
    monkeypatch.setattr(pipeline, "compile_for_onnxruntime", compile_for_cpu)
    monkeypatch.setattr(api, "open_checkpoint", lambda *_, **__: SimpleNamespace(directory=tmp_path / "from", model=PLUME_2B))
    source = plume_export.open_bundle(write_small_bundle(tmp_path / "onnx"))
    monkeypatch.setattr(pipeline, "export_checkpoint", lambda *_: source)
    if name == "build":
        built = plume_export.build("a checkpoint", tmp_path / "out", target="cpu", precision="fp32")
    else:
        built = plume_export.compile(source, tmp_path / "out", target="cpu")
    assert built.path == tmp_path / "out"
    assert (len(read), len(checked)) == (1, 1 if name == "build" else 0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_types_are_real(function: Any) -> None:
    hints = get_type_hints(function)
    assert set(hints) == {*inspect.signature(function).parameters, "return"}
    for hint in hints.values():
        assert Any not in (hint, *get_args(hint))


@pytest.mark.parametrize(("function", "command"), [(plume_export.export, export_command), (plume_export.build, build_command)])
def test_the_defaults_are_those_of_the_command_line(function: Any, command: Any) -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    context = command.make_context(command.name, [])
    flags = context.params
    assert (defaults["range_guard"], defaults["selftest"]) == (not flags["no_range_guard"], not flags["no_selftest"])
    assert [defaults[name] for name in ("modalities", "offline")] == [flags[name] for name in ("modalities", "offline")]
    model = plume_export.ModelOptions()
    assert [getattr(model, name) for name in vars(model)] == [flags[name] for name in vars(model)]
