"""Outlier variants: models that compute the same function with channels far larger than the rest.

A norm's channel goes up and the next linear layer's column down; a row of an up-projection goes up and the down-projection's
column down. Factors are powers of two, so that nothing rounds in float32.
"""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

# What produces channels, and what reads them, in each decoder layer and each vision block.
_DECODER = (
    (("input_layernorm.weight",), tuple(f"self_attn.{name}_proj.weight" for name in "qkv")),
    (("post_attention_layernorm.weight",), ("mlp.gate_proj.weight", "mlp.up_proj.weight")),
    (("mlp.up_proj.weight",), ("mlp.down_proj.weight",)),
)
_VISION = (
    (("norm1.weight", "norm1.bias"), ("attn.qkv.weight",)),
    (("norm2.weight", "norm2.bias"), ("mlp.fc1.weight",)),
)


def write_outlier_variant(source: Path, target: Path, *, factor: float, stride: int) -> Path:
    """Copy a checkpoint with every `stride`-th channel `factor` times as large. Weights become float32."""
    shutil.copytree(source, target)
    tensors = {name: tensor.float() for name, tensor in load_file(source / "model.safetensors").items()}
    for stem, pairs in (("model.layers.", _DECODER), ("visual.blocks.", _VISION)):
        for layer in sorted({name.split(".")[2] for name in tensors if name.startswith(stem)}):
            for producers, consumers in pairs:
                for name in producers:
                    _scale_rows(tensors, f"{stem}{layer}.{name}", factor, stride)
                for name in consumers:
                    tensors[f"{stem}{layer}.{name}"][:, ::stride] /= factor
    save_file(tensors, target / "model.safetensors")
    return target


def _scale_rows(tensors: dict[str, Tensor], name: str, factor: float, stride: int) -> None:
    tensors[name][::stride] *= factor
