"""ModelOpt in place of our own int8. Without the package: its errors."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import modelopt_int8
import numpy as np
import pytest
from graph_inputs import Feed
from modelopt_int8 import FeedReader, modelopt, modelopt_name
from third_party import ThirdPartyQuantiser

from plume_export.checkpoint import Checkpoint
from plume_export.errors import PlumeExportError


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(PlumeExportError, match="'modelopt' is not installed"):
        modelopt()


def test_what_it_says_of_a_graph_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def quantize(*_: object, **__: object) -> None:
        print("chatter")  # noqa: T201
        raise ValueError("no such layer type")

    stand_in = ModuleType("modelopt.onnx.quantization")
    stand_in.quantize = quantize  # type: ignore[attr-defined]
    for name in ("modelopt", "modelopt.onnx"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelopt.onnx.quantization", stand_in)
    monkeypatch.setattr(modelopt_int8, "version", lambda _: "9.9")
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


@pytest.mark.skipif(find_spec("modelopt") is None, reason="needs nvidia-modelopt (calibration/README.md)")
def test_the_sample_model(plume_tiny: Checkpoint, tmp_path: Path) -> None:
    bundle = ThirdPartyQuantiser(modelopt_name(), modelopt()).export(plume_tiny, tmp_path / "out")
    quantisation = bundle.manifest.quantisation
    assert quantisation is not None
    assert quantisation.quantizer.startswith("modelopt ")
    assert {"vision_encoder", "prefill"} <= set(quantisation.graphs)
