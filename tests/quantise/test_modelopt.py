"""ModelOpt in place of our own int8. Without the package: what is refused and how its errors are told."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner, Result

from plume_export.bundle import open_bundle
from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.quantise import modelopt as module
from plume_export.quantise.graph_inputs import Feed
from plume_export.quantise.modelopt import FeedReader, modelopt
from tests.cli.failures import assert_fails, assert_is_usage


def export(output: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "--quantizer", "modelopt", "-o", str(output), *arguments])


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    assert_fails(export(tmp_path / "out", "--precision", "int8"), "'modelopt' is not installed", "plume-export[modelopt]")


@pytest.mark.parametrize(
    "precision", ["fp16", "int8-weight", "vision_encoder=fp16,prefill=int8,latent_step=int8", "int4-weight"]
)
def test_another_precision(tmp_path: Path, precision: str) -> None:
    result = export(tmp_path / "out", "--precision", precision)
    assert_is_usage(result, "The quantizer modelopt is for int8 in all graphs", precision.split(",")[-1])


@pytest.mark.parametrize("option", [("--keep", "decoder.layers.0.qkv_proj"), ("--ranges", "ranges.npz")])
def test_options_of_our_own_quantiser(tmp_path: Path, option: tuple[str, str]) -> None:
    assert_is_usage(export(tmp_path / "out", "--precision", "int8", *option), "are for plume-export's own quantizer")


def test_what_it_says_of_a_graph_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def quantize(*_: object, **__: object) -> None:
        print("chatter")  # noqa: T201
        raise ValueError("no such layer type")

    stand_in = ModuleType("modelopt.onnx.quantization")
    stand_in.quantize = quantize  # type: ignore[attr-defined]
    for name in ("modelopt", "modelopt.onnx"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelopt.onnx.quantization", stand_in)
    monkeypatch.setattr(module, "version", lambda _: "9.9")
    with pytest.raises(PlumeExportError, match=r"modelopt 9\.9 cannot quantise prefill\.onnx: ValueError: no such layer type"):
        modelopt()(Path("prefill.onnx"), Path("out.onnx"), [])
    assert "chatter" not in capsys.readouterr().out


def test_feeds_are_read_in_order_and_again() -> None:
    feeds: list[Feed] = [{"step": np.array(step)} for step in range(3)]
    reader = FeedReader(feeds)
    assert len(reader) == 3
    assert reader.get_first() is feeds[0]
    assert [reader.get_next() for _ in range(4)] == [*feeds, None]
    reader.rewind()
    assert reader.get_next() is feeds[0]


@pytest.mark.skipif(find_spec("modelopt") is None, reason="needs the extra modelopt")
def test_the_sample_model(tmp_path: Path) -> None:
    result = export(tmp_path / "out", "--precision", "int8", "--no-selftest")
    assert result.exit_code == 0, result.output
    quantisation = open_bundle(tmp_path / "out").manifest.quantisation
    assert quantisation is not None
    assert quantisation.quantizer.startswith("modelopt ")
    assert {"vision_encoder", "prefill"} <= set(quantisation.graphs)
    assert quantisation.measured is not None
    assert 0.95 < quantisation.measured.mean < 0.9999
    assert f"quantised by {quantisation.quantizer}" in result.stdout
