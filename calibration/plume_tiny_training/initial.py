"""The files and the first weights of plume-tiny."""

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from plume_export.checkpoint.config_files import write_config_files
from plume_export.checkpoint.tokenizer_files import write_tokenizer
from plume_export.inputs.prompt import SYSTEM_MESSAGE
from plume_export.plume_tiny.tasks import TASKS, draw_answer, draw_query, sample_scene
from plume_export.spec import INSTRUCTION, DecoderSpec, ModelSpec, PreprocessSpec, RolloutSpec, TransitionSpec, VisionSpec
from plume_export.weight_names import expected_tensors

_VOCABULARY = 1000
_CAPTIONS = 4000
# What every prompt holds: one token each, or the prompt would be longer than what it asks about.
_PROMPT_PARTS = (
    f"system\n{SYSTEM_MESSAGE}",
    "user\n",
    "assistant\n",
    "<think>",
    "</think>\n",
    *(f"\n{INSTRUCTION}".split("<gen_emb>")),
)


def write_initial_files(directory: Path) -> ModelSpec:
    """Write tokenizer and configuration of plume-tiny; return its dimensions."""
    texts = [*_captions(), *_PROMPT_PARTS * _CAPTIONS]
    token_ids = write_tokenizer(directory, texts, vocabulary=_VOCABULARY, whole=_PROMPT_PARTS)
    model = ModelSpec(
        vision=VisionSpec(3, 96, 4, 384, 14, 2, 2, 3),
        decoder=DecoderSpec(4, 128, 4, 2, 32, 384, max(token_ids.values()) + 1, 1e-6, 1e4, (4, 6, 6), 32768),
        transition=TransitionSpec(experts=4, expert_width=256, step_table_rows=32, top_k=2),
        rollout=RolloutSpec(),
        preprocess=PreprocessSpec(),
    )
    write_config_files(directory, model, token_ids, dtype="float16", is_nested=False)
    return model


def initial_tensors(model: ModelSpec, *, seed: int) -> dict[str, Tensor]:
    """Return random tensors by canonical name. What writes to a residual stream starts small."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _initial_tensor(name, shape, generator) for name, shape in expected_tensors(model).items()}


def _initial_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if any(part in name for part in ("norm", ".ln.", ".ln_q.")):
        return torch.ones(shape)
    if "embed_tokens" in name or "step_embed" in name:
        return torch.empty(shape).normal_(0, 0.5, generator=generator)
    gain = 0.3 if any(part in name for part in ("o_proj", "down_proj", "attn.proj", "fc2", "router")) else 1.0
    return torch.empty(shape).normal_(0, gain / math.sqrt(math.prod(shape[1:])), generator=generator)


def _captions() -> Iterator[str]:
    random = Random("captions")
    for task in TASKS:
        for _ in range(_CAPTIONS // len(TASKS)):
            scene = sample_scene(task, random, "train")
            items = draw_query(task, scene, random, "train"), draw_answer(task, scene, random, "train")
            yield from (item.text + "\n" for item in items if item.text)
