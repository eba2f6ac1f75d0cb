"""Key layouts, sharding, config variants and tokenizer files: all lead to the same model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2VLForConditionalGeneration

from plume_export.checkpoint import CheckpointTensors, tokenizer_json_from_checkpoint, write_random_checkpoint
from plume_export.errors import PlumeExportError
from plume_export.pipeline import ModelOptions, export_checkpoint, open_checkpoint
from plume_export.spec import ModelSpec

from ..conftest import GOLDEN, WITHOUT_CALIBRATION
from ..golden_model import GOLDEN_MODEL

VARIANTS: dict[str, dict[str, object]] = {
    "nested": {"layout": "nested"},
    "sharded": {"shard_bytes": 1_000_000},
    "nested-sharded-prefixed": {"layout": "nested", "shard_bytes": 1_000_000, "key_prefix": "module."},
}


def model_of(directory: Path, **options: object) -> ModelSpec:
    return open_checkpoint(str(directory), ModelOptions(**options)).model  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_model_and_tensors(variant: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    other = tmp_path / variant
    write_random_checkpoint(other, "tiny", seed=0, **VARIANTS[variant])  # type: ignore[arg-type]
    assert len(list(other.glob("*.safetensors"))) == (1 if variant == "nested" else 5)
    assert model_of(other) == model_of(tiny_checkpoint)
    expected, actual = CheckpointTensors(tiny_checkpoint), CheckpointTensors(other)
    assert actual.names == expected.names
    assert all(torch.equal(actual.read(name), expected.read(name)) for name in expected.names)


def test_byte_identical_weights_in_the_bundle(tmp_path: Path) -> None:
    hashes = set()
    for name in ("flat", "nested-sharded-prefixed"):
        write_random_checkpoint(tmp_path / name, "tiny", seed=3, **VARIANTS.get(name, {}))  # type: ignore[arg-type]
        checkpoint = open_checkpoint(str(tmp_path / name), ModelOptions())
        bundle = export_checkpoint(checkpoint, tmp_path / f"{name}-bundle", WITHOUT_CALIBRATION("fp16"), lambda _: None)
        hashes.add(bundle.manifest.files["weights.safetensors"].sha256)
    assert len(hashes) == 1


def test_seeds_differ(tmp_path: Path, tiny_checkpoint: Path) -> None:
    write_random_checkpoint(tmp_path / "other", "tiny", seed=1)
    name = "model.norm.weight"
    assert not torch.equal(CheckpointTensors(tmp_path / "other").read(name), CheckpointTensors(tiny_checkpoint).read(name))


def test_existing_directory_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PlumeExportError, match="already exists"):
        write_random_checkpoint(tmp_path, "tiny", seed=0)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_transformers_loads_it(tiny_checkpoint: Path) -> None:
    _, info = Qwen2VLForConditionalGeneration.from_pretrained(tiny_checkpoint, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert all(key.startswith("latent_moe_transition.") for key in info["unexpected_keys"])


def test_golden_dimensions() -> None:
    assert model_of(GOLDEN / "checkpoint") == GOLDEN_MODEL


def test_config_without_top_level_sizes(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """As transformers 5 saves it: sizes in text_config only, rotary settings under rope_parameters."""
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    vision = config.pop("vision_config")
    rope = {**config.pop("rope_scaling"), "rope_theta": config.pop("rope_theta")}
    nested = {"model_type": "qwen2_vl", "vision_config": vision, "text_config": {**config, "rope_parameters": rope}}
    (copy / "config.json").write_text(json.dumps(nested))
    assert model_of(copy) == model_of(tiny_checkpoint)


def test_trained_budget_and_overrides(tmp_path: Path, tiny_checkpoint: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    history = [{"curriculum_latent_tokens": 2}, {"loss": 1.0}, {"curriculum_latent_tokens": 6}, {"loss": 0.5}]
    (copy / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    assert model_of(copy).rollout.latent_steps == 6
    assert model_of(copy, latent_steps=3).rollout.latent_steps == 3
    assert model_of(copy, max_pixels=100352).preprocess.max_pixels == 100352
    assert model_of(tiny_checkpoint).preprocess.max_pixels == 2359296


def test_embedding_larger_than_the_tokenizer(tmp_path: Path, tiny_checkpoint: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    tensors["model.embed_tokens.weight"] = torch.cat([table, torch.zeros(77, 128)])
    save_file(tensors, copy / "model.safetensors")
    assert model_of(copy).decoder.vocab == len(table) + 77


def test_tokenizer_from_vocab_and_merges(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(GOLDEN / "checkpoint", tmp_path / "copy"))
    (copy / "tokenizer.json").unlink()
    converted = Tokenizer.from_str(tokenizer_json_from_checkpoint(copy, 2000))
    stored = Tokenizer.from_file(str(GOLDEN / "checkpoint" / "tokenizer.json"))
    ids = np.load(GOLDEN / "golden.npz")["question/input_ids"]
    text = stored.decode(ids.tolist(), skip_special_tokens=False)
    for sample in (text, "<eot></think>\n<gen_emb>", "café, 東京 12 <disc_emb> don't"):
        assert converted.encode(sample, add_special_tokens=False).ids == stored.encode(sample, add_special_tokens=False).ids
