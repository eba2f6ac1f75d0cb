"""config.json, trainer_state.json and the tensors' shapes to the dimensions of a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, PlumeExportError
from ..layout import expected_tensors
from ..spec import (
    DecoderSpec,
    ModelSpec,
    PreprocessSpec,
    RolloutSpec,
    RouterContext,
    TransitionSpec,
    VisionSpec,
)
from .tensors import CheckpointTensors

_TRANSITION = "latent_moe_transition."


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
    """Return the dimensions: from the tensors where they show, else from config.json, else the published defaults.

    Raises CheckpointError for a config that is missing, damaged, of another model type or of an unsupported variant.
    """
    config = _read_json(directory / "config.json")
    if config.get("model_type") != "qwen2_vl":
        raise CheckpointError(
            f"{directory / 'config.json'} has model_type {config.get('model_type')!r}; expected 'qwen2_vl'.",
            fix="pass a PLUME checkpoint (Qwen2-VL with latent_moe_transition tensors)",
        )
    transition = _transition_spec(directory, tensors, top_k)
    steps = latent_steps or _trained_latent_steps(directory) or RolloutSpec().latent_steps
    if steps > transition.step_table_rows:
        raise CheckpointError(
            f"latent_steps is {steps}; the checkpoint's step table has {transition.step_table_rows} rows.",
            fix=f"--latent-steps 1 to {transition.step_table_rows}",
        )
    given = {"prefix": prefix, "suffix": suffix}
    preprocess = PreprocessSpec(**_given({"min_pixels": min_pixels, "max_pixels": max_pixels}), **_image_statistics(directory))
    if preprocess.min_pixels > preprocess.max_pixels:
        raise PlumeExportError(
            f"min_pixels is {preprocess.min_pixels} and max_pixels {preprocess.max_pixels}; expected min <= max.",
            fix="--min-pixels and --max-pixels in that order",
        )
    return ModelSpec(
        vision=_vision_spec(config.get("vision_config") or {}),
        decoder=_decoder_spec({**config, **(config.get("text_config") or {})}, tensors),
        transition=transition,
        rollout=RolloutSpec(latent_steps=steps, router_context=router_context, **_given(given)),
        preprocess=preprocess,
    )


def check_tensors(tensors: CheckpointTensors, model: ModelSpec) -> None:
    """Raise CheckpointError unless every tensor of the model is there with its shape."""
    expected = expected_tensors(model)
    missing = sorted(set(expected) - set(tensors.names))
    if missing:
        raise CheckpointError(
            f"The checkpoint lacks {len(missing)} tensor(s), the first is {missing[0]}.",
            fix="pass the complete checkpoint; config.json must be the one that the weights were saved with",
        )
    for name, shape in expected.items():
        if tensors.shape(name) != shape:
            raise CheckpointError(
                f"The tensor {name} has shape {list(tensors.shape(name))}; config.json asks for {list(shape)}.",
                fix="use the config.json that the weights were saved with",
            )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing.", fix="pass the directory of a whole checkpoint") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can not be read: {error}.", fix="download or copy the checkpoint again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} holds no JSON object.", fix="download or copy the checkpoint again")
    return value


def _vision_spec(config: Mapping[str, Any]) -> VisionSpec:
    if config.get("hidden_act", "quick_gelu") != "quick_gelu":
        raise _unsupported("vision_config.hidden_act", config["hidden_act"], "quick_gelu")
    width = config.get("embed_dim", 1280)
    return VisionSpec(
        depth=config.get("depth", 32),
        width=width,
        heads=config.get("num_heads", 16),
        mlp_width=int(width * config.get("mlp_ratio", 4)),
        patch_size=config.get("patch_size", config.get("spatial_patch_size", 14)),
        temporal_patch_size=config.get("temporal_patch_size", 2),
        merge_size=config.get("spatial_merge_size", 2),
        channels=config.get("in_channels", config.get("in_chans", 3)),
    )


def _decoder_spec(config: Mapping[str, Any], tensors: CheckpointTensors) -> DecoderSpec:
    if config.get("hidden_act", "silu") != "silu":
        raise _unsupported("hidden_act", config["hidden_act"], "silu")
    if config.get("use_sliding_window"):
        raise _unsupported("use_sliding_window", True, "false")
    rope = {**(config.get("rope_parameters") or {}), **(config.get("rope_scaling") or {})}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        raise _unsupported("rope_type", rope_type, "default or mrope")
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head_dim = config.get("head_dim") or hidden // heads
        return DecoderSpec(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            query_heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            mlp_width=config["intermediate_size"],
            vocab=tensors.shape("model.embed_tokens.weight")[0],  # may have been resized
            norm_epsilon=config.get("rms_norm_eps", 1e-6),
            rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 1e6))),
            mrope_sections=_mrope_sections(rope.get("mrope_section", (16, 24, 24)), head_dim),
            max_positions=config.get("max_position_embeddings", 32768),
        )
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the key {error}.", fix="pass the checkpoint's own config.json") from None


def _mrope_sections(sections: Any, head_dim: int) -> tuple[int, int, int]:
    if len(sections) != 3 or sum(sections) != head_dim // 2:
        raise CheckpointError(
            f"config.json has mrope_section {list(sections)}; expected three numbers that sum to {head_dim // 2}.",
            fix="use the config.json that the weights were saved with",
        )
    temporal, height, width = sections
    return temporal, height, width


def _transition_spec(directory: Path, tensors: CheckpointTensors, top_k: int) -> TransitionSpec:
    names = set(tensors.names)
    experts = sum(1 for name in names if name.startswith(f"{_TRANSITION}experts.") and name.endswith(".fc1.weight"))
    if not experts or f"{_TRANSITION}step_embed.weight" not in names:
        raise CheckpointError(
            f"{directory} has no latent transition weights ({_TRANSITION}*): this is a plain Qwen2-VL, not PLUME.",
            fix="pass a PLUME checkpoint",
        )
    if not 1 <= top_k <= experts:
        raise CheckpointError(f"top_k is {top_k}; the checkpoint has {experts} experts.", fix=f"--top-k 1 to {experts}")
    return TransitionSpec(
        experts=experts,
        expert_width=tensors.shape(f"{_TRANSITION}experts.0.fc1.weight")[0],
        step_table_rows=tensors.shape(f"{_TRANSITION}step_embed.weight")[0],
        top_k=top_k,
    )


def _trained_latent_steps(directory: Path) -> int | None:
    """The last budget of the training curriculum, if the trainer's log came along."""
    if not (directory / "trainer_state.json").is_file():
        return None
    history = _read_json(directory / "trainer_state.json").get("log_history") or []
    budgets = [entry["curriculum_latent_tokens"] for entry in history if "curriculum_latent_tokens" in entry]
    return int(budgets[-1]) if budgets else None


def _image_statistics(directory: Path) -> dict[str, Any]:
    """Mean and deviation of preprocessor_config.json; its pixel limits are replaced by the published evaluation's."""
    if not (directory / "preprocessor_config.json").is_file():
        return {}
    config = _read_json(directory / "preprocessor_config.json")
    return {key: tuple(config[key]) for key in ("image_mean", "image_std") if key in config}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _unsupported(key: str, received: object, expected: str) -> CheckpointError:
    return CheckpointError(f"config.json has {key} {received!r}; only {expected} is supported.", fix="pass a PLUME checkpoint")
