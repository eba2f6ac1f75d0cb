"""Derive the dimensions of a model from config.json, trainer_state.json and tensor shapes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, OptionError, PlumeExportError
from ..spec import (
    DecoderSpec,
    ModelSpec,
    PreprocessSpec,
    RolloutSpec,
    RouterContext,
    TransitionSpec,
    VisionSpec,
)
from ..weight_names import TOKEN_TABLE, TRANSITION, expected_tensors
from .config_files import ImageStatistics, TextConfig, TrainerState, VisionConfig, read_config
from .tensors import CheckpointTensors

_TOKEN_PIXELS = 28 * 28  # one visual token


def model_spec_from_checkpoint(
    directory: Path,
    tensors: CheckpointTensors,
    *,
    latent_steps: int | None = None,
    top_k: int = 2,
    router_context: RouterContext = "disc",
    prefix: str | None = None,
    suffix: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> ModelSpec:
    """Return the dimensions: from the tensors where possible, else from config.json, else those of the original model.

    Raises CheckpointError for a config that is missing, corrupt, of another model type or of an unsupported variant.
    """
    config = _read_json(directory / "config.json")
    if config.get("model_type") != "qwen2_vl":
        raise CheckpointError(
            f"{directory / 'config.json'} has model_type {config.get('model_type')!r}; expected 'qwen2_vl'.",
            fix="pass a PLUME checkpoint (Qwen2-VL with latent_moe_transition tensors)",
        )
    transition = _transition_spec(directory, tensors, top_k)
    steps = _trained_latent_steps(directory) if latent_steps is None else latent_steps
    steps = RolloutSpec().latent_steps if steps is None else steps
    if not 1 <= steps <= transition.step_table_rows:
        raise CheckpointError(
            f"latent_steps is {steps}; the checkpoint's step table has {transition.step_table_rows} rows.",
            fix=f"pass --latent-steps 1 to {transition.step_table_rows}",
        )
    file = directory / "config.json"
    text_config = config.get("text_config") or {}
    if not isinstance(text_config, dict):
        raise CheckpointError(f"text_config in {file} is not an object.", fix="pass the checkpoint's own config.json")
    vision = read_config(config.get("vision_config") or {}, VisionConfig, file)
    text = read_config({**config, **text_config}, TextConfig, file)
    return ModelSpec(
        vision=_vision_spec(vision),
        decoder=_decoder_spec(text, tensors),
        transition=transition,
        rollout=RolloutSpec(latent_steps=steps, router_context=router_context, **_given({"prefix": prefix, "suffix": suffix})),
        preprocess=_preprocess_spec(directory, min_pixels, max_pixels, text.max_position_embeddings),
    )


def check_tensors(tensors: CheckpointTensors, model: ModelSpec) -> None:
    """Raise CheckpointError unless every tensor of the model exists with the right shape."""
    expected = expected_tensors(model)
    missing = sorted(set(expected) - set(tensors.names))
    if missing:
        raise CheckpointError(
            f"The checkpoint lacks {len(missing)} tensor(s); the first is {missing[0]}.",
            fix="pass the complete checkpoint; config.json must be the one that the weights were saved with",
        )
    for name, shape in expected.items():
        if tensors.shape(name) != shape:
            raise CheckpointError(
                f"The tensor {name} has shape {list(tensors.shape(name))}; expected {list(shape)} from config.json.",
                fix="use the config.json that the weights were saved with",
            )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing.", fix="pass the directory of a complete checkpoint") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.", fix="download or copy the checkpoint again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} is not a JSON object.", fix="download or copy the checkpoint again")
    return value


def _vision_spec(config: VisionConfig) -> VisionSpec:
    if config.hidden_act != "quick_gelu":
        raise _unsupported("vision_config.hidden_act", config.hidden_act, "quick_gelu")
    if config.embed_dim % (4 * config.num_heads):  # a head's channels are rotated in pairs, by row and by column
        raise CheckpointError(
            f"config.json has {config.num_heads} vision heads for {config.embed_dim} channels; expected a "
            "multiple of 4 channels per head.",
            fix="use the config.json that the weights were saved with",
        )
    return VisionSpec(
        depth=config.depth,
        width=config.embed_dim,
        heads=config.num_heads,
        mlp_width=int(config.embed_dim * config.mlp_ratio),
        patch_size=config.patch_size or config.spatial_patch_size,
        temporal_patch_size=config.temporal_patch_size,
        merge_size=config.spatial_merge_size,
        channels=config.in_channels or config.in_chans,
    )


def _decoder_spec(config: TextConfig, tensors: CheckpointTensors) -> DecoderSpec:
    if config.hidden_act != "silu":
        raise _unsupported("hidden_act", config.hidden_act, "silu")
    if config.use_sliding_window:
        raise _unsupported("use_sliding_window", True, "false")
    rope = config.rope
    if (rope_type := rope.rope_type or rope.type or "default") not in ("default", "mrope"):
        raise _unsupported("rope_type", rope_type, "default or mrope")
    heads = config.num_attention_heads
    head_dim = config.head_dim or config.hidden_size // heads
    return DecoderSpec(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        query_heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=head_dim,
        mlp_width=config.intermediate_size,
        vocab=_first_axis(tensors, TOKEN_TABLE),  # the embedding table may have been resized
        norm_epsilon=config.rms_norm_eps,
        rope_theta=rope.rope_theta or config.rope_theta,
        mrope_sections=_mrope_sections(rope.mrope_section or (16, 24, 24), head_dim),
        max_positions=config.max_position_embeddings,
    )


def _mrope_sections(sections: tuple[int, int, int], head_dim: int) -> tuple[int, int, int]:
    if sum(sections) != head_dim // 2:
        raise CheckpointError(
            f"config.json has mrope_section {list(sections)}; expected three numbers that sum to {head_dim // 2}.",
            fix="use the config.json that the weights were saved with",
        )
    return sections


def _first_axis(tensors: CheckpointTensors, name: str) -> int:
    shape = tensors.shape(name)
    if not shape or not shape[0]:
        raise CheckpointError(
            f"The tensor {name} has shape {list(shape)}; expected at least one row.", fix="pass a complete PLUME checkpoint"
        )
    return shape[0]


def _transition_spec(directory: Path, tensors: CheckpointTensors, top_k: int) -> TransitionSpec:
    names = set(tensors.names)
    experts = sum(1 for name in names if name.startswith(f"{TRANSITION}experts.") and name.endswith(".fc1.weight"))
    if not experts or f"{TRANSITION}step_embed.weight" not in names:
        raise CheckpointError(
            f"{directory} has no latent transition weights ({TRANSITION}*): it is a plain Qwen2-VL checkpoint, not PLUME.",
            fix="pass a PLUME checkpoint",
        )
    if not 1 <= top_k <= experts:
        raise CheckpointError(
            f"top_k is {top_k}, but the checkpoint has {experts} experts.", fix=f"pass --top-k 1 to {experts}"
        )
    return TransitionSpec(
        experts=experts,
        expert_width=_first_axis(tensors, f"{TRANSITION}experts.0.fc1.weight"),
        step_table_rows=_first_axis(tensors, f"{TRANSITION}step_embed.weight"),
        top_k=top_k,
    )


def _trained_latent_steps(directory: Path) -> int | None:
    """Return the number of latent steps at the end of training, from the trainer's log; None if it is not logged."""
    if not (directory / "trainer_state.json").is_file():
        return None
    file = directory / "trainer_state.json"
    state = read_config(_read_json(file), TrainerState, file)
    logged = [entry.curriculum_latent_tokens for entry in state.log_history or ()]
    budgets = [int(budget) for budget in logged if budget is not None]
    return budgets[-1] or None if budgets else None


def _image_statistics(directory: Path) -> dict[str, Any]:
    """Return mean and standard deviation of pixels from preprocessor_config.json.

    The file's pixel limits are ignored, because the original evaluation has its own.
    """
    if not (directory / "preprocessor_config.json").is_file():
        return {}
    file = directory / "preprocessor_config.json"
    statistics = read_config(_read_json(file), ImageStatistics, file)
    return _given({"image_mean": statistics.image_mean, "image_std": statistics.image_std})


def _preprocess_spec(directory: Path, min_pixels: int | None, max_pixels: int | None, positions: int) -> PreprocessSpec:
    """Return pixel limits and image statistics. The default limits are those of the original evaluation."""
    most = positions * _TOKEN_PIXELS
    for name, least, value in (("min_pixels", 1, min_pixels), ("max_pixels", _TOKEN_PIXELS, max_pixels)):
        if value is not None and not least <= value <= most:
            raise PlumeExportError(
                f"{name} is {value}; expected {least} to {most}. An image of {most} pixels has one token per model position.",
                fix=f"pass --{name.replace('_', '-')} {least} to {most}",
            )
    preprocess = PreprocessSpec(**_given({"min_pixels": min_pixels, "max_pixels": max_pixels}), **_image_statistics(directory))
    if preprocess.min_pixels > preprocess.max_pixels:
        raise OptionError(
            f"min_pixels is {preprocess.min_pixels} and max_pixels is {preprocess.max_pixels}; expected "
            "min_pixels <= max_pixels.",
            fix="choose --min-pixels below --max-pixels",
        )
    return preprocess


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _unsupported(key: str, received: object, expected: str) -> CheckpointError:
    return CheckpointError(f"config.json has {key} {received!r}; only {expected} is supported.", fix="pass a PLUME checkpoint")
