"""The options of integer precisions, and what they refuse."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plume_export.bundle import Bundle, graphs_of, open_bundle
from plume_export.checkpoint import Checkpoint
from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.pipeline import ExportOptions, export_checkpoint
from plume_export.quantise.activation_ranges import Ranges, write_ranges
from plume_export.quantise.calibrate import calibrate
from plume_export.quantise.options import QuantiseOptions, accuracy_threshold, precisions_from_text
from plume_export.samples import sample_inputs_file
from plume_export.selftest import run_selftest
from plume_export.spec import GRAPH_NAMES
from tests.cli.failures import assert_fails, assert_is_usage


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def ranges_file(shipped_ranges: Ranges, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ranges") / "plume-tiny.npz"
    write_ranges(shipped_ranges, file)
    return file


@pytest.fixture(scope="module")
def mixed(ranges_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Result]:
    """A precision for each graph, an excluded layer and int8's accuracy threshold."""
    output = tmp_path_factory.mktemp("mixed") / "bundle"
    precisions = "vision_encoder=fp16,prefill=int8,latent_step=int8-weight"
    kept = "decoder.layers.0.down_proj"
    result = run("export", "--precision", precisions, "--ranges", ranges_file, "--exclude", kept, "-o", output)
    assert result.exit_code == 0, result.output
    return open_bundle(output), result


def test_one_precision_or_one_for_each_graph() -> None:
    assert precisions_from_text("bf16").schemes == {}
    assert precisions_from_text("int8").schemes == dict.fromkeys(GRAPH_NAMES, "int8")
    chosen = precisions_from_text("latent_step=int8-weight,vision_encoder=fp16,prefill=int8")
    assert chosen.name == "int8"
    assert chosen.schemes == {"prefill": "int8", "latent_step": "int8-weight"}
    assert precisions_from_text("vision_encoder=fp16,prefill=fp16,latent_step=fp16").name == "fp16"


@pytest.mark.parametrize(
    "text",
    [
        "int3",
        "prefill=int8",
        "vision_encoder=int8,prefill=int8,prefill=int8",
        "vision_encoder=bf16,prefill=int8,latent_step=int8",
    ],
)
def test_what_is_no_precision(text: str) -> None:
    with pytest.raises(PlumeExportError):
        precisions_from_text(text)


def test_thresholds() -> None:
    assert accuracy_threshold("int8", None) == accuracy_threshold("int8-weight", None) == 0.99
    assert accuracy_threshold("int4-weight", None) is None
    assert accuracy_threshold("int4-weight", 0.95) == 0.95
    assert accuracy_threshold("int8", 0.0) is None


@pytest.mark.slow
def test_the_manifest_says_what_was_done(mixed: tuple[Bundle, Result], shipped_ranges: Ranges) -> None:
    quantisation = mixed[0].manifest.quantisation
    assert quantisation is not None
    assert mixed[0].manifest.precision == "int8"
    assert quantisation.graphs == {"prefill": "int8", "latent_step": "int8-weight"}
    assert quantisation.kept == {"decoder.layers.0.down_proj": 384 * 128 - 2 * 128}
    assert quantisation.calibration_inputs == shipped_ranges.about.inputs
    assert quantisation.calibration_sha256 == shipped_ranges.about.inputs_sha256
    assert quantisation.min_cosine == 0.99
    assert quantisation.measured is not None
    assert quantisation.measured.inputs == 20
    assert quantisation.measured.worst >= 0.99


@pytest.mark.slow
def test_export_and_inspect_print_it(mixed: tuple[Bundle, Result]) -> None:
    inspected = run("inspect", mixed[0].path).stdout
    for line in (
        "quantised: prefill int8, latent_step int8-weight; calibrated on 40 inputs",
        "excluded (16 bit): 1 layers, 48,896 bytes larger",
        "decoder.layers.0.down_proj: 48,896",
        "minimum of 20 held-out inputs (threshold 0.99)",
    ):
        assert line in mixed[1].stdout
        assert line in inspected
    assert json.loads(run("inspect", mixed[0].path, "--json").stdout)["quantisation"]["min_cosine"] == 0.99


@pytest.mark.slow
def test_selftest_passes(mixed: tuple[Bundle, Result]) -> None:
    assert run_selftest(mixed[0]).parity.first_bad_stage is None


@pytest.mark.slow
def test_text_alone_needs_no_ranges_of_the_vision_encoder(tmp_path: Path, plume_tiny: Checkpoint) -> None:
    """And measures the texts of the held-out inputs; with the vision encoder the same ranges are refused."""
    inputs = tmp_path / "texts.jsonl"
    inputs.write_text('{"text": "a red circle"}\n{"text": "the word DOG in black"}\n')
    write_ranges(calibrate(plume_tiny, inputs), tmp_path / "texts.npz")
    options = QuantiseOptions(ranges_file=tmp_path / "texts.npz", min_cosine=0.9)
    export = ExportOptions("int8-weight", "text", sample_inputs_file(), options)
    bundle = export_checkpoint(plume_tiny, tmp_path / "bundle", export, lambda _: None)
    assert bundle.manifest.quantisation is not None
    assert bundle.manifest.quantisation.measured is not None
    assert bundle.manifest.quantisation.measured.inputs == 9
    result = run("export", "--precision", "int8", "--ranges", tmp_path / "texts.npz", "-o", tmp_path / "out")
    assert_fails(result, "visual.blocks.0.qkv did not run", "images too")


def test_a_layer_that_does_not_exist(tmp_path: Path) -> None:
    result = run("export", "--precision", "int8", "--exclude", "decoder.layers.9.qkv_proj", "-o", tmp_path / "out")
    assert_fails(result, "'decoder.layers.9.qkv_proj'", "choose layers such as visual.blocks.0.qkv")


@pytest.mark.slow
def test_ranges_of_another_checkpoint(tmp_path: Path, tiny_checkpoint: Path, ranges_file: Path) -> None:
    result = run(
        "export", "--checkpoint", tiny_checkpoint, "--precision", "int8", "--ranges", ranges_file, "-o", tmp_path / "o"
    )
    assert_fails(result, "are of another checkpoint (plume-tiny)", "plume-export calibrate")


def test_graphs_that_can_not_share_their_weights(tmp_path: Path) -> None:
    for prefill, step in (("int8", "int4-weight"), ("fp16", "int8-weight")):
        text = f"vision_encoder=int8,prefill={prefill},latent_step={step}"
        assert_fails(
            run("export", "--precision", text, "-o", tmp_path / "out"), f"latent_step is {step}, but they share their weights"
        )


def test_options_of_integers_with_another_precision(tmp_path: Path) -> None:
    assert_is_usage(
        run("export", "--precision", "fp16", "--min-cosine", "0.9", "-o", tmp_path / "out"), "are for integer precisions"
    )
    assert_is_usage(
        run("export", "--precision", "bf16", "--ranges", tmp_path / "r.npz", "-o", tmp_path / "out"), "omit --ranges"
    )


def test_a_graph_that_is_not_built_has_no_precision(tmp_path: Path) -> None:
    by_graph = "vision_encoder=int8,prefill=fp16,latent_step=fp16"
    result = run("export", "--precision", by_graph, "--modalities", "text", "-o", tmp_path / "out")
    assert_is_usage(
        result, "expected each of prefill, latent_step once, and vision_encoder is not built", "--precision prefill=int8"
    )
    assert not (tmp_path / "out").exists()
    assert precisions_from_text("prefill=fp16, latent_step=fp16", graphs_of("text")).name == "fp16"
    assert precisions_from_text("int8", graphs_of("text")).schemes == {"prefill": "int8", "latent_step": "int8"}
