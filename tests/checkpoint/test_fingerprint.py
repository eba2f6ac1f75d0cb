"""The hash of a checkpoint is that of its tensors, however they are stored."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from plume_export.checkpoint import ExaminedTensors, checkpoint_sha256


def sha256(directory: Path) -> str:
    return checkpoint_sha256(ExaminedTensors(directory))


def stored(directory: Path, tensors: dict[str, torch.Tensor]) -> Path:
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    return directory


def test_files_layout_and_path_do_not_count(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    renamed = {"base_model.model." + name: tensor for name, tensor in tensors.items()}
    assert sha256(stored(tmp_path / "renamed", renamed)) == sha256(tiny_checkpoint)
    names = sorted(tensors)
    weight_map = {}
    shards = tmp_path / "shards"
    shards.mkdir()
    for file, part in {"b.safetensors": names[:7], "a.safetensors": names[7:]}.items():
        save_file({name: tensors[name] for name in part}, shards / file)
        weight_map |= dict.fromkeys(part, file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert sha256(shards) == sha256(tiny_checkpoint)


def test_every_value_dtype_and_name_counts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.0.input_layernorm.weight"))
    hashes = {sha256(tiny_checkpoint)}
    changed = tensors[name].clone()
    changed[-1] += 1
    hashes.add(sha256(stored(tmp_path / "value", tensors | {name: changed})))
    hashes.add(sha256(stored(tmp_path / "dtype", tensors | {name: tensors[name].double()})))
    hashes.add(sha256(stored(tmp_path / "fewer", {key: value for key, value in tensors.items() if key != name})))
    assert len(hashes) == 4
