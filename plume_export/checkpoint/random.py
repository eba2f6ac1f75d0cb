"""Random checkpoints in exactly the original layout, for tests, benchmarks and experiments.

Tensors are generated and written one at a time, so memory is bounded by the largest one. A tensor depends only on the seed and
its canonical name, not on the key layout, the sharding or the rounding of other tensors.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from ..bundle import new_directory
from ..progress import Report
from ..spec import PLUME_2B, DecoderSpec, ModelSpec, PreprocessSpec, RolloutSpec, TransitionSpec, VisionSpec
from ..weight_file import TensorType, write_header
from ..weight_names import TOKEN_TABLE, KeyLayout, expected_tensors, stored_key
from .config_files import write_config_files
from .tensors import INDEX
from .tokenizer_files import write_tokenizer

Preset = Literal["tiny", "2b-slice", "2b"]
DTypeName = Literal["float32", "bfloat16"]

_DEFAULT_SHARD_BYTES = 2 << 30
_ALIGNMENT = 8  # as safetensors has it
# Standard deviation of linear weights, times sqrt(fan-in). With these values attention focuses on few tokens, so that different
# inputs stay different through the layers. The first match applies. `deep` weights write to the residual stream and are scaled
# down with the number of layers.
_GAINS: tuple[tuple[str, float, bool], ...] = (
    (r"self_attn\.[qk]_proj\.weight", 1.5, False),
    (r"self_attn\.v_proj\.weight", 1.25, False),
    (r"self_attn\.o_proj\.weight", 1.25, True),
    (r"mlp\.down_proj\.weight", 1.6, True),
    (r"layers\..*mlp\..*\.weight", 1.13, False),
    (r"blocks\..*attn\.qkv\.weight", 1.0, False),
    (r"blocks\..*(attn\.proj|fc2)\.weight", 0.8, True),
    (r"shared_expert\..*\.weight", 1.25, False),
    (r"experts\..*\.weight", 1.0, False),
    (r"router\.weight", 4.0, False),
    (r"\.weight", 0.8, False),
)
_SHALLOW_LAYERS = 3


def write_random_checkpoint(
    output: Path,
    preset: Preset,
    *,
    seed: int,
    dtype: DTypeName | None = None,
    layout: KeyLayout = "flat",
    shard_bytes: int | None = None,
    key_prefix: str = "",
    report: Report = lambda _: None,
) -> None:
    """Write a checkpoint directory, all or nothing.

    `tiny` has a few MB; `2b-slice` has the widths of the 2B model, but 4 decoder layers and 4 vision blocks; `2b` has its full
    dimensions. `layout` "flat" uses the keys of transformers 4.51, "nested" those of 4.52. Raises PlumeExportError if `output`
    is not empty or cannot be written.
    """
    dtype = dtype or ("float32" if preset == "tiny" else "bfloat16")
    if shard_bytes is None and preset != "tiny":
        shard_bytes = _DEFAULT_SHARD_BYTES
    with new_directory(output, report) as directory:
        token_ids = write_tokenizer(directory)
        model = preset_spec(preset, tokens=max(token_ids.values()) + 1)
        write_config_files(directory, model, token_ids, dtype=dtype, is_nested=layout == "nested")
        _write_shards(directory, model, seed, dtype, layout, shard_bytes, key_prefix)


def preset_spec(preset: Preset, *, tokens: int) -> ModelSpec:
    """Return the dimensions of a preset. `tokens` is the size of the tokenizer; the 2B presets have a larger vocabulary."""
    if preset == "2b":
        return PLUME_2B
    if preset == "2b-slice":
        vision = msgspec.structs.replace(PLUME_2B.vision, depth=4)
        return msgspec.structs.replace(PLUME_2B, vision=vision, decoder=msgspec.structs.replace(PLUME_2B.decoder, layers=4))
    vision = VisionSpec(2, 64, 2, 256, 14, 2, 2, 3)
    decoder = DecoderSpec(3, 128, 4, 2, 32, 256, tokens, 1e-6, 1e6, (4, 6, 6), 32768)
    transition = TransitionSpec(experts=4, expert_width=2 * decoder.hidden, step_table_rows=32, top_k=2)
    return ModelSpec(vision, decoder, transition, RolloutSpec(), PreprocessSpec())


def _write_shards(
    directory: Path,
    model: ModelSpec,
    seed: int,
    dtype: DTypeName,
    layout: KeyLayout,
    shard_bytes: int | None,
    key_prefix: str,
) -> None:
    shapes = expected_tensors(model)
    shards = list(_split(shapes, shard_bytes, getattr(torch, dtype).itemsize))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        keys = {name: key_prefix + stored_key(name, layout) for name in names}
        weight_map |= dict.fromkeys(keys.values(), file)
        with (directory / file).open("wb") as stream:
            types = {keys[name]: TensorType(dtype, shapes[name]) for name in names}
            write_header(stream, types, alignment=_ALIGNMENT, metadata={"format": "pt"})
            for name in names:
                tensor = _random_tensor(name, shapes[name], model, seed).to(getattr(torch, dtype))
                stream.write(tensor.flatten().view(torch.uint8).numpy().data)
    if len(shards) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _split(shapes: dict[str, tuple[int, ...]], shard_bytes: int | None, item_bytes: int) -> Iterator[list[str]]:
    shard: list[str] = []
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * item_bytes
        if shard and shard_bytes is not None and filled + size > shard_bytes:
            yield shard
            shard, filled = [], 0
        shard.append(name)
        filled += size
    yield shard


def _random_tensor(name: str, shape: tuple[int, ...], model: ModelSpec, seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    mean, deviation = _statistics(name, shape, model)
    return torch.empty(shape).normal_(mean, deviation, generator=generator)


def _statistics(name: str, shape: tuple[int, ...], model: ModelSpec) -> tuple[float, float]:
    """Return mean and standard deviation of a tensor's values."""
    if re.search(r"(norm\d?|ln|ln_q|layernorm)\.weight$", name):
        return 1.0, 0.1
    if name.endswith(".bias"):
        return 0.0, 0.3 if "_proj.bias" in name else 0.1
    if name == TOKEN_TABLE:
        return 0.0, 0.3
    if name.endswith("step_embed.weight"):
        return 0.0, 0.8
    gain, is_deep = next((gain, is_deep) for pattern, gain, is_deep in _GAINS if re.search(pattern, name))
    depth = model.vision.depth if name.startswith("visual.") else model.decoder.layers
    shrink = math.sqrt(min(1.0, _SHALLOW_LAYERS / depth)) if is_deep else 1.0
    return 0.0, gain * shrink / math.sqrt(math.prod(shape[1:]))
