"""A quantiser of ONNX files that is not ours: what it gets, what becomes of its files, and what is refused."""

from pathlib import Path

import msgspec
import onnx
import onnx_ir as ir
import pytest
import third_party
from graph_inputs import Feed
from third_party import ThirdPartyQuantiser, int8_matmuls

from plume_export.bundle import CONSTANTS, MANIFEST, TOKENIZER, Bundle, Quantisation, open_bundle
from plume_export.checkpoint import Checkpoint
from plume_export.errors import BundleError, PlumeExportError
from plume_export.pipeline import ModelOptions, compile_bundle, open_checkpoint
from plume_export.recipe import read_target

TEXTS, STEPS = 16, 8


def rewrite(source: Path, target: Path, feeds: list[Feed]) -> None:
    """Save a graph with its weights inside, and something beside it."""
    onnx.save(onnx.load(source), target)
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

    output = tmp_path_factory.mktemp("third-party") / "bundle"
    return ThirdPartyQuantiser("rewriter 1.0", quantise_file).export(plume_tiny, output, "text")


@pytest.mark.slow
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


def test_it_is_not_compiled(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"quantised by rewriter 1\.0.*(?s:.*)precision int8"):
        compile_bundle(bundle, tmp_path / "out", read_target("cpu"))


def test_a_model_that_does_not_fit_a_file(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(third_party, "_MOST_BYTES", 1000)
    opened = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    with pytest.raises(PlumeExportError, match="up to 1,000"):
        ThirdPartyQuantiser("rewriter 1.0", rewrite).export(opened, tmp_path / "out", "text")
    assert not (tmp_path / "out").exists()


def test_matmuls_in_int8_take_both_operands_from_integers() -> None:
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
    assert int8_matmuls(graph) == (1, 2)


def test_older_manifests_are_of_our_own_quantiser() -> None:
    text = '{"graphs": {}, "kept": {}, "calibration_inputs": 1, "calibration_sha256": "", "min_cosine": null, "measured": null}'
    assert msgspec.json.decode(text, type=Quantisation).quantizer == "own"
