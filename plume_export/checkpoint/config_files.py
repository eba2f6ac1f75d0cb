"""The required keys of a checkpoint's JSON files, with their types. Other keys are ignored."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import CheckpointError
from ..spec import ModelSpec

# No real model is near these limits. They reject absurd sizes early, before tensor shapes are compared.
_Layers = Annotated[int, msgspec.Meta(ge=1, le=1024)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
_Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e38)]
_Finite = Annotated[float, msgspec.Meta(gt=-1e6, lt=1e6)]
_Struct = TypeVar("_Struct")


class VisionConfig(msgspec.Struct, frozen=True):
    """`vision_config` of config.json."""

    depth: _Layers = 32
    embed_dim: _Count = 1280
    num_heads: _Count = 16
    mlp_ratio: _Positive = 4
    patch_size: _Count | None = None
    spatial_patch_size: _Count = 14
    temporal_patch_size: _Count = 2
    spatial_merge_size: _Count = 2
    in_channels: _Count | None = None
    in_chans: _Count = 3
    hidden_act: str = "quick_gelu"


class Rope(msgspec.Struct, frozen=True):
    """`rope_scaling` or `rope_parameters`."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: _Positive | None = None
    mrope_section: tuple[_Count, _Count, _Count] | None = None


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of config.json itself, or of its `text_config`."""

    hidden_size: _Count
    num_attention_heads: _Count
    num_hidden_layers: _Layers
    intermediate_size: _Count
    head_dim: _Count | None = None
    num_key_value_heads: _Count | None = None
    rms_norm_eps: _Positive = 1e-6
    rope_theta: _Positive = 1e6
    max_position_embeddings: _Count = 32768
    hidden_act: str = "silu"
    use_sliding_window: bool | None = False
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None

    @property
    def rope(self) -> Rope:
        """The keys of `rope_scaling` (older, has priority) and `rope_parameters`. Raises msgspec.ValidationError."""
        return msgspec.convert({**(self.rope_parameters or {}), **(self.rope_scaling or {})}, Rope)


class ImageStatistics(msgspec.Struct, frozen=True):
    """preprocessor_config.json. Its pixel limits are ignored."""

    image_mean: tuple[_Finite, _Finite, _Finite] | None = None
    image_std: tuple[_Positive, _Positive, _Positive] | None = None


class LogEntry(msgspec.Struct, frozen=True):
    """One entry of the trainer's log."""

    curriculum_latent_tokens: Annotated[float, msgspec.Meta(ge=0, le=1024)] | None = None


class TrainerState(msgspec.Struct, frozen=True):
    """trainer_state.json."""

    log_history: tuple[LogEntry, ...] | None = None


def read_config(value: Any, kind: type[_Struct], file: Path) -> _Struct:
    """Return the required keys. Raises CheckpointError with key and type if one is missing or wrong."""
    try:
        found = msgspec.convert(value, kind)
        if isinstance(found, TextConfig):
            _ = found.rope
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # UnicodeEncodeError: half of a surrogate pair
        raise CheckpointError(f"{file} is invalid: {error}.", fix="use the file that the weights were saved with") from None
    return found


def write_config_files(directory: Path, model: ModelSpec, token_ids: Mapping[str, int], *, dtype: str, is_nested: bool) -> None:
    """Write config.json, generation_config.json and preprocessor_config.json.

    config.json is flat as in transformers 4.51, or has `text_config` as in 4.52 if `is_nested`.
    """
    files = {
        "config.json": _config(model, token_ids, dtype, is_nested=is_nested),
        "generation_config.json": {
            "bos_token_id": token_ids["<|endoftext|>"],
            "eos_token_id": [token_ids["<|im_end|>"], token_ids["<|endoftext|>"]],
            "pad_token_id": token_ids["<|endoftext|>"],
        },
        "preprocessor_config.json": {
            "min_pixels": 784,
            "max_pixels": 12845056,
            "patch_size": model.vision.patch_size,
            "temporal_patch_size": model.vision.temporal_patch_size,
            "merge_size": model.vision.merge_size,
            "image_mean": model.preprocess.image_mean,
            "image_std": model.preprocess.image_std,
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _config(model: ModelSpec, token_ids: Mapping[str, int], dtype: str, *, is_nested: bool) -> dict[str, object]:
    decoder, vision = model.decoder, model.vision
    text: dict[str, object] = {
        "attention_dropout": 0.0,
        "bos_token_id": token_ids["<|endoftext|>"],
        "eos_token_id": token_ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": decoder.hidden,
        "initializer_range": 0.02,
        "intermediate_size": decoder.mlp_width,
        "max_position_embeddings": decoder.max_positions,
        "max_window_layers": decoder.layers,
        "num_attention_heads": decoder.query_heads,
        "num_hidden_layers": decoder.layers,
        "num_key_value_heads": decoder.kv_heads,
        "rms_norm_eps": decoder.norm_epsilon,
        "rope_scaling": {"mrope_section": decoder.mrope_sections, "rope_type": "default", "type": "default"},
        "rope_theta": decoder.rope_theta,
        "sliding_window": 32768,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": decoder.vocab,
    }
    config: dict[str, object] = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        **text,
        "image_token_id": token_ids["<|image_pad|>"],
        "video_token_id": token_ids["<|video_pad|>"],
        "vision_start_token_id": token_ids["<|vision_start|>"],
        "vision_end_token_id": token_ids["<|vision_end|>"],
        "vision_token_id": token_ids["<|vision_pad|>"],
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "vision_config": {
            "depth": vision.depth,
            "embed_dim": vision.width,
            "hidden_act": "quick_gelu",
            "hidden_size": decoder.hidden,
            "in_channels": vision.channels,
            "in_chans": vision.channels,
            "mlp_ratio": vision.mlp_width // vision.width,
            "model_type": "qwen2_vl",
            "num_heads": vision.heads,
            "patch_size": vision.patch_size,
            "spatial_merge_size": vision.merge_size,
            "spatial_patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
        },
    }
    if is_nested:
        config["text_config"] = {**text, "model_type": "qwen2_vl_text", "torch_dtype": dtype}
    return config
