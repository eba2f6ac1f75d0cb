"""Checkpoints that cannot be used: each a clear error that names the thing and the fix."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plume_export.checkpoint import tokenizer_json_from_checkpoint
from plume_export.errors import CheckpointError
from plume_export.pipeline import ModelOptions, open_checkpoint


@pytest.fixture
def copy(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def edit_config(directory: Path, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


def edit_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def assert_refused(directory: Path | str, *parts: str, offline: bool = False) -> None:
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(str(directory), ModelOptions(), offline=offline)
    for part in (*parts, "fix:"):
        assert part in str(raised.value)


def test_missing_directory(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "The checkpoint directory")


def test_hub_id_offline_and_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert_refused("nobody/nothing", "nobody/nothing", "local hub cache", offline=True)


def test_hub_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert_refused("nobody/nothing", "could not be downloaded from the hub", "name resolution failed", "offline uses")


def test_lora_adapter(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    assert_refused(copy, "LoRA adapter", "merge_and_unload")


def test_pickle_weights_only(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert_refused(copy, "pickle", "pytorch_model.bin", "safetensors")


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert_refused(copy, "no *.safetensors")


def test_no_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    assert_refused(copy, "config.json", "missing")


def test_broken_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    assert_refused(copy, "config.json", "cannot be read")


def test_unknown_model_type(copy: Path) -> None:
    edit_config(copy, model_type="llama")
    assert_refused(copy, "'llama'", "'qwen2_vl'")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_sliding_window": True},
        {"rope_scaling": {"rope_type": "yarn", "mrope_section": [4, 6, 6]}},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 7]}},
    ],
)
def test_unsupported_variants(copy: Path, changes: dict[str, object]) -> None:
    edit_config(copy, **changes)
    assert_refused(copy, "config.json has")


def test_truncated_weights(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert_refused(copy, "model.safetensors", "not a complete safetensors file")


def test_corrupt_header(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    assert_refused(copy, "model.safetensors", "not a complete safetensors file")


def test_plain_qwen2_vl(copy: Path) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("latent_moe_transition")]:
            del tensors[name]

    edit_tensors(copy, drop)
    assert_refused(copy, "no latent transition weights", "plain Qwen2-VL")


def test_missing_tensor(copy: Path) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.1.mlp.up_proj.weight"]

    edit_tensors(copy, drop)
    assert_refused(copy, "lacks 1 tensor", "model.layers.1.mlp.up_proj.weight")


def test_wrong_shape(copy: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(copy, lambda tensors: tensors.update({name: torch.zeros(7, 128)}))
    assert_refused(copy, name, "[7, 128]", "[256, 128]")


def test_two_keys_for_one_tensor(copy: Path) -> None:
    edit_tensors(copy, lambda tensors: tensors.update({"module.model.norm.weight": torch.ones(128)}))
    assert_refused(copy, "both stand for the tensor model.norm.weight")


def test_missing_shard(copy: Path) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    assert_refused(copy, "model-2.safetensors", "missing")


def test_index_names_a_key_that_is_not_there(copy: Path) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert_refused(copy, "'a'", "does not")


def test_tokenizer_without_plume_tokens(copy: Path) -> None:
    file = copy / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "<disc_emb>"]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match=r"lacks PLUME's token\(s\) <disc_emb>"):
        tokenizer_json_from_checkpoint(copy, 10_000)


def test_token_beyond_the_embedding(copy: Path) -> None:
    with pytest.raises(CheckpointError, match="the embedding has 500 rows"):
        tokenizer_json_from_checkpoint(copy, 500)


def test_no_tokenizer(copy: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        (copy / name).unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json, and no vocab\.json"):
        tokenizer_json_from_checkpoint(copy, 10_000)


@pytest.mark.parametrize(("steps", "top_k", "part"), [(33, 2, "step table has 32 rows"), (8, 5, "4 experts")])
def test_options_beyond_the_tensors(copy: Path, steps: int, top_k: int, part: str) -> None:
    with pytest.raises(CheckpointError, match=part):
        open_checkpoint(str(copy), ModelOptions(latent_steps=steps, top_k=top_k))
