"""A quantiser of ONNX files that is not ours: what it gets, what becomes of its files, and what is refused."""

import shutil
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from plume_export.bundle import CONSTANTS, MANIFEST, TOKENIZER, Bundle, Quantisation, open_bundle
from plume_export.checkpoint import Checkpoint
from plume_export.errors import BundleError, PlumeExportError
from plume_export.pipeline import ModelOptions, compile_bundle, open_checkpoint
from plume_export.portable_bundle import export_bundle
from plume_export.quantise import third_party as foreign
from plume_export.quantise.graph_inputs import Feed
from plume_export.quantise.third_party import ForeignQuantiser, int8_products

TEXTS, STEPS = 16, 8


def rewrite(source: Path, target: Path, feeds: list[Feed], *, damages: bool = False) -> None:
    """Save a graph with its weights inside, and something beside it."""
    graph = onnx.load(source)
    for tensor in graph.graph.initializer:
        if damages and tensor.name == "decoder.norm.weight":
            values = numpy_helper.to_array(tensor)
            signs = np.where(np.arange(len(values)) % 2, 1, -1).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values * signs, tensor.name))
    onnx.save(graph, target)
    target.with_name("leftover.json").write_text("{}")


@pytest.fixture(scope="module")
def fed() -> dict[str, int]:
    """How many runs each graph was quantised on."""
    return {}


@pytest.fixture(scope="module")
def bundle(plume_tiny: Checkpoint, fed: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    def quantise_file(source: Path, target: Path, feeds: list[Feed]) -> None:
        fed[source.stem] = len(feeds)
        rewrite(source, target, feeds)

    quantiser = ForeignQuantiser("rewriter 1.0", quantise_file, plume_tiny, "text")
    output = tmp_path_factory.mktemp("foreign") / "bundle"
    return export_bundle(plume_tiny, output, precision="int8", modalities="text", quantise=quantiser, traced_in="fp32")


def test_the_bundle_holds_the_rewritten_graphs_and_no_more(bundle: Bundle) -> None:
    names = {file.name for file in bundle.path.iterdir()}
    assert names == {MANIFEST, CONSTANTS, TOKENIZER, "prefill.onnx", "latent_step.onnx"}
    assert {file.name for file in bundle.path.parent.iterdir()} == {bundle.path.name}
    open_bundle(bundle.path)


def test_calibrated_on_the_texts(bundle: Bundle, fed: dict[str, int]) -> None:
    assert bundle.manifest.quantisation is not None
    assert bundle.manifest.quantisation.calibration_inputs == TEXTS
    assert fed == {"prefill": TEXTS, "latent_step": TEXTS * STEPS}


def test_the_manifest_says_what_was_found(bundle: Bundle) -> None:
    """float32 graphs whose weights were not touched: no integers, no error."""
    quantisation = bundle.manifest.quantisation
    assert quantisation is not None
    assert (quantisation.quantizer, quantisation.graphs, quantisation.min_cosine) == ("rewriter 1.0", {}, None)
    assert quantisation.measured is not None
    assert quantisation.measured.inputs == 9
    assert quantisation.measured.worst >= 0.99999


def test_it_is_not_compiled(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"quantised by rewriter 1\.0.*(?s:.*)quantizer own"):
        compile_bundle(bundle, tmp_path / "out", "cpu")


@pytest.fixture
def float_bundle(tiny_fp32: Bundle, tmp_path: Path) -> Bundle:
    """The text graphs of a small random model, as they are handed to a quantiser."""
    shutil.copytree(tiny_fp32.path, tmp_path / "floats")
    graphs = {name: spec for name, spec in tiny_fp32.manifest.graphs.items() if name != "vision_encoder"}
    return Bundle(tmp_path / "floats", msgspec.structs.replace(tiny_fp32.manifest, precision="int8", graphs=graphs))


def test_a_worse_embedding_than_asked_for(tiny_checkpoint: Path, float_bundle: Bundle) -> None:
    opened = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    quantiser = ForeignQuantiser("rewriter 1.0", partial(rewrite, damages=True), opened, "text", min_cosine=0.9)
    with pytest.raises(PlumeExportError, match=r"cosine of rewriter 1\.0 is .* at worst.*asks for 0\.9"):
        quantiser(lambda _: float_bundle)


def test_a_model_that_does_not_fit_a_file(tiny_checkpoint: Path, float_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_MOST_BYTES", 1000)
    opened = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    with pytest.raises(PlumeExportError, match="up to 1,000"):
        ForeignQuantiser("rewriter 1.0", rewrite, opened, "text")(lambda _: float_bundle)


def test_products_in_int8_take_both_sides_from_integers() -> None:
    graph = ir.from_onnx_text(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[N,4] x, int8[4,4] w, float s, float[4,4] v) => (float[N,4] y, float[N,4] z) {
            q = QuantizeLinear(x, s)
            d = DequantizeLinear(q, s)
            u = DequantizeLinear(w, s)
            y = MatMul(d, u)
            z = MatMul(d, v)
        }"""
    )
    assert int8_products(graph) == (1, 2)


def test_older_manifests_are_of_our_own_quantiser() -> None:
    text = '{"graphs": {}, "kept": {}, "calibration_inputs": 1, "calibration_sha256": "", "min_cosine": null, "measured": null}'
    assert msgspec.json.decode(text, type=Quantisation).quantizer == "own"
