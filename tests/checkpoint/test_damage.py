"""Files of a checkpoint and options of export that make no sense: every one is an error with a fix, before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.pipeline import ExportOptions, ModelOptions, export_checkpoint, open_checkpoint
from plume_export.quantise.options import QuantiseOptions

JSON_FILES = (
    *("config.json", "tokenizer.json", "preprocessor_config.json", "trainer_state.json"),
    "model.safetensors.index.json",
)


@pytest.fixture
def copy(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def assert_refused(directory: Path | str, **options: Any) -> PlumeExportError:
    """An error of ours; whatever else is raised fails the test."""
    with pytest.raises(PlumeExportError, match="fix:") as raised:
        open_checkpoint(str(directory), ModelOptions(**options))
    return raised.value


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"added_tokens": 3}'])
@pytest.mark.parametrize("name", JSON_FILES)
def test_json_that_is_not_what_it_should_be(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    if name in ("preprocessor_config.json", "trainer_state.json") and content.startswith(b"{"):
        open_checkpoint(str(copy), ModelOptions())  # other keys are nobody's business
    else:
        assert name in assert_refused(copy).message


def test_an_empty_config(copy: Path) -> None:
    (copy / "config.json").write_text("{}")
    assert "model_type None; expected 'qwen2_vl'" in assert_refused(copy).message


WRONG = (None, "many", [], -1, 0, 10**30)


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_values_of_a_config_that_are_wrong_or_are_the_default(copy: Path, value: object) -> None:
    """Every key that counts, one at a time: a checkpoint that opens is one whose value says nothing."""
    config = json.loads((copy / "config.json").read_text())
    for part in (config, config["vision_config"], config["rope_scaling"], config.get("text_config", {})):
        for key in list(part):
            kept = part[key]
            part[key] = value
            (copy / "config.json").write_text(json.dumps(config))
            part[key] = kept
            try:
                open_checkpoint(str(copy), ModelOptions())
            except PlumeExportError as error:
                assert error.command_line_fix is not None, key  # noqa: PT017


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 10**9, "<= 1024"),
        ("num_hidden_layers", "three", "Expected `int`, got `str` - at `$.num_hidden_layers`"),
        ("num_attention_heads", 0, ">= 1"),
        ("hidden_size", None, "Expected `int`, got `null` - at `$.hidden_size`"),
        ("rope_scaling", {"mrope_section": [1, 2]}, "length 3"),
        ("vision_config", {"num_heads": 7}, "7 vision heads for 1280 channels"),
        ("vision_config", [1], "Expected `object`, got `array`"),
        ("text_config", [1], "is not an object"),
    ],
)
def test_a_wrong_key_is_named(copy: Path, key: str, value: object, message: str) -> None:
    edit(copy / "config.json", lambda config: config.update({key: value}))
    assert message in assert_refused(copy).message


def test_a_missing_key_is_named(copy: Path) -> None:
    edit(copy / "config.json", lambda config: config.pop("intermediate_size"))
    assert "missing required field `intermediate_size`" in assert_refused(copy).message


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 16, b"\x10" + b"\0" * 7 + b'{"a":{"dtype":1}}'])
def test_weights_that_are_no_safetensors(copy: Path, content: bytes) -> None:
    (copy / "model.safetensors").write_bytes(content)
    assert_refused(copy)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_of_another_quantiser(copy: Path, dtype: torch.dtype) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(dtype)}, copy / "model.safetensors")
    assert f"contains {name!r} in" in assert_refused(copy).message


def test_tensors_without_axes(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    for name in ("model.embed_tokens.weight", "latent_moe_transition.step_embed.weight"):
        save_file(tensors | {name: torch.tensor(1.0)}, copy / "model.safetensors")
        assert f"The tensor {name} has shape []" in assert_refused(copy).message


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\0b", "C:x", "a\\b"]
)
def test_a_shard_elsewhere(copy: Path, shard: str) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "expected a file in the same directory" in assert_refused(copy).message


def test_a_shard_whose_name_no_file_can_have(copy: Path) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 300}}))
    assert "which is missing" in assert_refused(copy).message


def test_half_a_surrogate_pair(copy: Path) -> None:
    (copy / "trainer_state.json").write_text('{"log_history": [{"\\ud800": 1}]}')
    assert "trainer_state.json is invalid" in assert_refused(copy).message


def test_a_shard_that_is_a_link(copy: Path) -> None:
    """As in the hub's cache, whose snapshots link to the files beside them."""
    (copy.parent / "blobs").mkdir()
    (copy / "model.safetensors").rename(copy.parent / "blobs" / "1f2e")
    (copy / "model-1.safetensors").symlink_to("../blobs/1f2e")
    weight_map = dict.fromkeys(load_file(copy / "model-1.safetensors"), "model-1.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert open_checkpoint(str(copy), ModelOptions()).tensors.names


@pytest.mark.parametrize(
    ("name", "key", "listed"),
    [
        ("tokenizer_config.json", "fast_tokenizer_files", "../outside/tokenizer.4.0.0.json"),
        ("tokenizer_config.json", "fast_tokenizer_files", "/outside/tokenizer.4.0.0.json"),
        ("config.json", "configuration_files", "elsewhere/config.4.0.0.json"),
        ("config.json", "configuration_files", 4),
    ],
)
def test_a_file_of_transformers_elsewhere(copy: Path, name: str, key: str, listed: object) -> None:
    content = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(content | {key: [listed]}))
    error = assert_refused(copy)
    assert str(copy / name) in error.message
    assert key in error.message
    (copy / name).write_text(json.dumps(content | {key: f"{name}, no list"}))
    assert f"has a {key} that is not a list of names" in assert_refused(copy).message


def test_files_of_transformers_beside_the_usual_ones_are_fine(copy: Path) -> None:
    content = json.loads((copy / "tokenizer_config.json").read_text())
    content["fast_tokenizer_files"] = ["tokenizer.json", "tokenizer.4.0.0.json"]
    (copy / "tokenizer_config.json").write_text(json.dumps(content))
    open_checkpoint(str(copy), ModelOptions())


def test_a_path_that_is_a_file(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that could be a hub id."""
    monkeypatch.chdir(copy.parent)
    for name in (str(copy / "config.json"), "checkpoint/config.json"):
        assert f"{name} is a file; expected the directory" in assert_refused(name).message


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "no/such/place", "\0", "./none"])
def test_names_that_are_no_checkpoint(name: str) -> None:
    assert_refused(name)


def test_no_tokenizer_files(copy: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (copy / name).unlink()
        if name == "tokenizer.json":
            continue
        assert "has no tokenizer.json" in assert_refused(copy).message


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe", b"{}"])
def test_broken_files_of_the_slow_tokenizer(copy: Path, name: str, content: bytes) -> None:
    """merges.txt may hold anything: it is only lines."""
    (copy / "tokenizer.json").unlink()
    (copy / name).write_bytes(content)
    try:
        open_checkpoint(str(copy), ModelOptions())
    except PlumeExportError as error:
        assert error.command_line_fix is not None  # noqa: PT017
    else:
        assert name == "merges.txt"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "trainer_state.json", "model.safetensors.index.json"])
def test_json_that_is_nested_without_end(copy: Path, name: str) -> None:
    (copy / name).write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert name in assert_refused(copy).message


def test_a_tokenizer_that_is_no_model(copy: Path) -> None:
    edit(copy / "tokenizer.json", lambda tokenizer: tokenizer.update(model={"type": "none"}))
    assert "tokenizer cannot be read" in assert_refused(copy).message


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"chat_template": null}'])
def test_a_tokenizer_config_without_a_template(copy: Path, tmp_path: Path, content: bytes) -> None:
    """Found when the export begins, before anything is measured or written."""
    (copy / "tokenizer_config.json").write_bytes(content)
    (copy / "chat_template.json").unlink()
    opened = open_checkpoint(str(copy), ModelOptions())
    with pytest.raises(PlumeExportError, match=r"tokenizer (of|cannot)(.|\n)*fix:"):
        export_checkpoint(opened, tmp_path / "out" / "bundle", ExportOptions(), pytest.fail)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": ""}, "The prefix '' does not end with <bot>"),
        ({"prefix": "<bot> now"}, "does not end with <bot>"),
        ({"prefix": "<disc_emb><bot>"}, "contains <disc_emb>"),
        ({"prefix": "<|image_pad|><bot>"}, "contains <|image_pad|>"),
        ({"prefix": "word " * 40_000 + "<bot>"}, "leaves none for an input"),
        ({"suffix": ""}, "The suffix '' does not end with <gen_emb>"),
        ({"suffix": "<eot>"}, "does not end with <gen_emb>"),
        ({"suffix": "<gen_emb>\n"}, "does not end with <gen_emb>"),
        ({"latent_steps": 0}, "latent_steps is 0"),
        ({"latent_steps": -3}, "latent_steps is -3"),
        ({"latent_steps": 10**30}, "latent_steps is 1000"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 10**30}, "top_k is 1000"),
        ({"min_pixels": 0}, "min_pixels is 0; expected 1"),
        ({"min_pixels": 10**30}, "min_pixels is 1000"),
        ({"min_pixels": 3_000_000}, "min_pixels is 3000000 and max_pixels is 2359296"),
        ({"max_pixels": 0}, "max_pixels is 0; expected 784"),
        ({"max_pixels": 10**30}, "max_pixels is 1000"),
    ],
)
def test_options_that_no_model_can_have(tiny_checkpoint: Path, options: dict[str, Any], message: str) -> None:
    assert message in assert_refused(tiny_checkpoint, **options).message


def test_forced_texts_of_ones_own(tiny_checkpoint: Path) -> None:
    model = open_checkpoint(str(tiny_checkpoint), ModelOptions(prefix="<bot>", suffix="<eot><gen_emb>")).model
    assert (model.rollout.prefix, model.rollout.suffix) == ("<bot>", "<eot><gen_emb>")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int9"}, "precision is 'int9'; expected one of fp32"),
        ({"modalities": "video"}, "modalities is 'video'"),
        ({"precision": "int8", "quantise": QuantiseOptions(min_cosine=float("nan"))}, "min_cosine is nan; expected 0 to 1"),
        ({"precision": "int8", "quantise": QuantiseOptions(min_cosine=1.5)}, "min_cosine is 1.5"),
        (
            {"precision": "int8", "modalities": "text", "quantise": QuantiseOptions({"vision_encoder": "int8"})},
            "vision_encoder has the precision int8 but is not built",
        ),
        (
            {"precision": "int8", "quantise": QuantiseOptions({"latent_step": "int8-weight"})},
            "The precision is int8 but the graphs have latent_step=int8-weight",
        ),
        ({"quantise": QuantiseOptions({"prefill": "int8"})}, "The precision is fp16 but the graphs have prefill=int8"),
    ],
)
def test_export_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlumeExportError) as raised:
        ExportOptions(**options)
    assert message in raised.value.message


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


SILLY: tuple[tuple[str, ...], ...] = (
    *(("--prefix", ""), ("--suffix", ""), ("--prefix", "x"), ("--suffix", "<bot>"), ("--checkpoint", "")),
    *(("--checkpoint", __file__), ("--revision", ""), ("--revision", "v1"), ("--precision", ""), ("--precision", "int")),
    *(("--precision", "prefill=int8"), ("--precision", "prefill=int8,prefill=int8,latent_step=int8"), ("--precision", "=")),
    *(("--precision", "a=b,c=d,e=f"), ("--precision", ",,"), ("--precision", "fp16=")),
    ("--precision", "vision_encoder=int8,prefill=fp16,latent_step=fp16", "--modalities", "text"),
    *(("--ranges", ""), ("--ranges", "none.npz"), ("--ranges", "/"), ("--keep", ""), ("--keep", "x")),
    *(("--min-cosine", value) for value in ("nan", "-1", "inf", "2", "", "0.5")),
    *((option, value) for option in ("--latent-steps", "--top-k") for value in ("0", "-1", "9" * 30, "", "nan", "33")),
    *((option, value) for option in ("--min-pixels", "--max-pixels") for value in ("0", "-1", "9" * 30, "", "nan")),
    *(("--router-context", ""), ("--modalities", ""), ("--output", "x" * 250)),
)


@pytest.mark.parametrize("command", ["export", "build"])
@pytest.mark.parametrize("options", SILLY, ids=" ".join)
def test_silly_options(command: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 or 2 with a message; no traceback, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    result = run(command, *(() if command == "export" else ("--target", "cpu")), "--precision", "fp32", *options)
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (1, 2)
    assert "rror: " in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("calibrate", "-o", "out.npz", "--checkpoint", ""),
        ("calibrate", "-o", "out.npz", "--inputs", "/"),
        ("calibrate", "-o", "out.npz", "--inputs", "/dev/null"),
        ("calibrate", "-o", "out.npz", "--inputs", ""),
        ("calibrate", "-o", ""),
        ("calibrate", "-o", "x" * 300),
        ("calibrate", "-o", "/dev/null/x"),
        ("random-checkpoint", ""),
        ("random-checkpoint", "x" * 250),
        ("random-checkpoint", "x" * 300),
        ("random-checkpoint", "/dev/null/x"),
        ("random-checkpoint", "out", "--seed", "nan"),
        ("random-checkpoint", "out", "--seed", ""),
        ("random-checkpoint", "out", "--preset", ""),
        ("plan", "--target", ""),
        ("plan", "--target", "rtx", "--checkpoint", ""),
        ("plan", "--target", "/"),
        ("plan", "--target", "x" * 300 + ".toml"),
        ("compile", "", "-o", "out"),
        ("compile", "/dev/null", "-o", "out"),
    ],
    ids=" ".join,
)
def test_silly_arguments_of_the_other_commands(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (1, 2)
    assert "rror: " in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", ["-1", "0", "9" * 40])
def test_any_number_is_a_seed(tmp_path: Path, seed: str) -> None:
    assert run("random-checkpoint", tmp_path / "out", "--seed", seed).exit_code == 0
