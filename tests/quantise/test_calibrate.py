"""`calibrate`: its file, its warnings, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from plume_export.checkpoint import checkpoint_sha256, tokenizer_json_from_checkpoint
from plume_export.cli import main
from plume_export.errors import CheckpointError, InputError, PlumeExportError
from plume_export.inputs import Item, Preprocessor
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.quantise.activation_ranges import Ranges, read_ranges, write_ranges
from plume_export.quantise.calibrate import calibrate, coverage_warning
from tests.conftest import GOLDEN

# Finite; times another magnitude over 1 it is not.
HUGE = 3e38


def inputs_file(directory: Path, *lines: dict[str, object]) -> Path:
    file = directory / "inputs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def ranges_of(checkpoint: Path, inputs: Path) -> Ranges:
    return calibrate(open_checkpoint(str(checkpoint), ModelOptions()), inputs)


@pytest.fixture(scope="module")
def texts(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Ranges:
    file = inputs_file(tmp_path_factory.mktemp("texts"), {"id": "a", "text": "a text"}, {"id": "b", "text": "another, longer"})
    return ranges_of(tiny_checkpoint, file)


@pytest.fixture
def damaged(tmp_path: Path, tiny_checkpoint: Path) -> Callable[[str, Callable[[torch.Tensor], None]], Path]:
    """Copies the checkpoint with one tensor changed; `name` is the end of its key."""

    def damage(name: str, change: Callable[[torch.Tensor], None]) -> Path:
        copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "damaged"))
        tensors = load_file(copy / "model.safetensors")
        (key,) = [key for key in tensors if key.endswith(name)]
        change(tensors[key])
        save_file(tensors, copy / "model.safetensors")
        return copy

    return damage


def test_command_writes_ranges_of_all_phases(tmp_path: Path) -> None:
    output = tmp_path / "ranges.npz"
    checkpoint = GOLDEN / "checkpoint"
    inputs = inputs_file(
        tmp_path,
        {"id": "picture", "image": str(GOLDEN / "images" / "transparent.png")},
        {"id": "clip", "text": "What moves?", "video": [str(GOLDEN / "videos" / f"small_{index}.png") for index in range(2)]},
    )
    arguments = ["calibrate", "--checkpoint", str(checkpoint), "--inputs", str(inputs), "--output", str(output), "-v"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}\n"
    assert "latent step 8 of 8: 2 inputs" in result.stderr
    assert "warning" not in result.stderr
    ranges = read_ranges(output, checkpoint_sha256(open_checkpoint(str(checkpoint), ModelOptions()).tensors))
    assert {phase: len(linears) for phase, linears in ranges.linears.items()} == {
        "vision": 11,
        "prefill": 12,
        "step": 15,
        "readout": 15,
    }
    assert ranges.about.modalities == ("text", "image", "video")
    assert list(tmp_path.glob(".*")) == []


def test_a_file_holds_what_was_written(texts: Ranges, tmp_path: Path) -> None:
    write_ranges(texts, tmp_path / "ranges.npz")
    read = read_ranges(tmp_path / "ranges.npz", texts.about.checkpoint_sha256)
    assert read.about == texts.about
    for phase, linears in texts.linears.items():
        assert read.linears[phase].keys() == linears.keys()
        for name, seen in linears.items():
            for field, value in vars(seen).items():
                assert np.array_equal(getattr(read.linears[phase][name], field), np.asarray(value, np.asarray(value).dtype))


def test_inputs_hash_follows_content(texts: Ranges, tiny_checkpoint: Path, tmp_path: Path) -> None:
    same = inputs_file(tmp_path, {"id": "x", "text": "a text"}, {"id": "y", "text": " another, longer "})
    assert ranges_of(tiny_checkpoint, same).about.inputs_sha256 == texts.about.inputs_sha256
    other = inputs_file(tmp_path, {"id": "a", "text": "a text"})
    assert ranges_of(tiny_checkpoint, other).about.inputs_sha256 != texts.about.inputs_sha256


def test_one_modality_is_warned_of(texts: Ranges, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert texts.linears["vision"] == {}
    assert coverage_warning(texts.about) == (
        "all 2 calibration inputs are text only: images and videos are not covered; the vision encoder was not run at all"
    )
    picture = inputs_file(tmp_path, {"id": "a", "image": str(GOLDEN / "images" / "transparent.png")})
    result = CliRunner().invoke(
        main, ["calibrate", "--checkpoint", str(tiny_checkpoint), "--inputs", str(picture), "-o", str(tmp_path / "r.npz")]
    )
    assert "warning: all 1 calibration inputs are image only: texts and videos are not covered\n" in result.stderr


def test_no_inputs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n\n")
    with pytest.raises(PlumeExportError, match=r"none\.jsonl are empty.*\n.*inputs"):
        ranges_of(tiny_checkpoint, tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"gone\.jsonl cannot be read"):
        ranges_of(tiny_checkpoint, tmp_path / "gone.jsonl")


def test_bad_input_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = inputs_file(tmp_path, {"id": "good", "text": "a"}, {"id": "bad", "image": "gone.png"})
    with pytest.raises(InputError, match=r"input 'bad': .*gone\.png"):
        ranges_of(tiny_checkpoint, file)


def test_output_that_can_not_be_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["calibrate", "--output", str(tmp_path / "none" / "ranges.npz")])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert "reading" not in result.stderr


def test_outputs_that_would_destroy_an_input(tmp_path: Path) -> None:
    inputs = inputs_file(tmp_path, {"id": "a", "text": "a"}).rename(tmp_path / "inputs.npz")
    (tmp_path / "link.npz").symlink_to(inputs.name)
    (tmp_path / "checkpoint").mkdir()
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.write_text("weights")
    before = inputs.read_bytes()
    for output, text in (
        (inputs, "is also the input"),
        (tmp_path / "link.npz", "neither is replaced"),
        (weights, "has the suffix '.safetensors'"),
        (tmp_path / "ranges", "has no suffix"),
        (weights.with_name("ranges.npz"), "is inside its input"),
    ):
        given = ["--checkpoint", str(weights.parent), "--inputs", str(inputs)]
        result = CliRunner().invoke(main, ["calibrate", *given, "--output", str(output)])
        assert result.exit_code == (2 if "suffix" in text else 1), result.output
        assert text in result.stderr
    assert (inputs.read_bytes(), weights.read_text()) == (before, "weights")
    assert [file.name for file in weights.parent.iterdir()] == [weights.name]


def test_ranges_of_another_checkpoint(texts: Ranges, tmp_path: Path) -> None:
    write_ranges(texts, tmp_path / "ranges.npz")
    golden = checkpoint_sha256(open_checkpoint(str(GOLDEN / "checkpoint"), ModelOptions()).tensors)
    with pytest.raises(PlumeExportError, match="are of another checkpoint"):
        read_ranges(tmp_path / "ranges.npz", golden)


@pytest.mark.parametrize("content", [b"", b"no ranges", b"PK\x03\x04 no archive", b"\x93NUMPY an array of its own"])
def test_file_that_holds_no_ranges(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ranges.npz").write_bytes(content)
    with pytest.raises(PlumeExportError, match="is not a ranges file"):
        read_ranges(tmp_path / "ranges.npz", "")


def test_ranges_of_another_format(texts: Ranges, tmp_path: Path) -> None:
    newer = Ranges(msgspec.structs.replace(texts.about, format_version=99), texts.linears)
    write_ranges(newer, tmp_path / "ranges.npz")
    with pytest.raises(PlumeExportError, match="have the format 99"):
        read_ranges(tmp_path / "ranges.npz", texts.about.checkpoint_sha256)


def test_nan_in_a_weight(damaged: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = damaged("layers.1.mlp.down_proj.weight", lambda weight: weight[3, 5].fill_(torch.nan))
    file = inputs_file(tmp_path, {"id": "a", "text": "a"})
    with pytest.raises(CheckpointError, match=r"tensor model\.layers\.1\.mlp\.down_proj\.weight has 1 times NaN"):
        ranges_of(checkpoint, file)


def test_a_weight_that_makes_infinity(damaged: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = damaged("layers.1.mlp.down_proj.weight", lambda weight: weight[3].fill_(HUGE))
    file = inputs_file(tmp_path, {"id": "a", "text": "a"})
    with pytest.raises(
        PlumeExportError,
        match=r"decoder\.layers\.1\.down_proj \(prefill\) computes .* for the input 'a'. The layer's parameters are finite",
    ):
        ranges_of(checkpoint, file)


def test_infinity_out_of_one_expert(damaged: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = damaged("experts.2.fc2.weight", lambda weight: weight[0].fill_(HUGE))
    file = inputs_file(tmp_path, {"id": "a", "text": "a"}, {"id": "b", "text": "b"})
    with pytest.raises(
        PlumeExportError, match=r"transition\.experts \(step\) computes .* for the input 'a'. The layer's parameters"
    ):
        ranges_of(checkpoint, file)


def test_infinity_out_of_a_norm_of_the_vision_encoder(damaged: Callable[..., Path], tmp_path: Path) -> None:
    """It shows for the blank image too, which stands before the text."""
    checkpoint = damaged("visual.blocks.0.norm1.weight", lambda weight: weight.fill_(HUGE))
    file = inputs_file(tmp_path, {"id": "a", "text": "a"})
    with pytest.raises(PlumeExportError, match=r"visual\.blocks\.0\.norm1 computes infinity for the input 'the blank image'"):
        ranges_of(checkpoint, file)


def test_nan_that_one_input_meets(
    damaged: Callable[..., Path], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token's embedding: the input that has the token is named, not the one that is padded to its length."""
    monkeypatch.setattr("plume_export.checkpoint.examined._check_finite", lambda *_: None)  # a NaN that the model would make
    opened = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    tokenizer_json = tokenizer_json_from_checkpoint(opened.directory, opened.model.decoder.vocab)
    preprocessor = Preprocessor(tokenizer_json, opened.model)
    long, short = "Zebra zebra zebra", "a"
    ids, others = (set(preprocessor.prepare(Item(text=text)).input_ids.tolist()) for text in (long, short))
    token = min(ids - others)
    checkpoint = damaged("embed_tokens.weight", lambda weight: weight[token].fill_(torch.nan))
    file = inputs_file(tmp_path, {"id": "without", "text": short}, {"id": "with", "text": long})
    with pytest.raises(PlumeExportError, match=r"\(prefill\) computes .* for the input 'with'"):
        ranges_of(checkpoint, file)
