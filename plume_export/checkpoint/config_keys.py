"""The keys of a checkpoint's JSON files that count, with their types; what else is there is not looked at."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import CheckpointError

# No model is near these; more would only keep a machine busy before the shapes are found to be others.
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
    """config.json's own keys, or those of its `text_config`."""

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
        """Both places together; `rope_scaling`, the older, counts. Raises msgspec.ValidationError."""
        return msgspec.convert({**(self.rope_parameters or {}), **(self.rope_scaling or {})}, Rope)


class ImageStatistics(msgspec.Struct, frozen=True):
    """preprocessor_config.json. Its pixel limits do not count."""

    image_mean: tuple[_Finite, _Finite, _Finite] | None = None
    image_std: tuple[_Positive, _Positive, _Positive] | None = None


class LogEntry(msgspec.Struct, frozen=True):
    """One entry of the trainer's log."""

    curriculum_latent_tokens: Annotated[float, msgspec.Meta(ge=0, le=1024)] | None = None


class TrainerState(msgspec.Struct, frozen=True):
    """trainer_state.json."""

    log_history: tuple[LogEntry, ...] | None = None


def read_config(value: Any, kind: type[_Struct], file: Path) -> _Struct:
    """Return the keys that count. Raises CheckpointError, with key and type, for one that is missing or wrong."""
    try:
        found = msgspec.convert(value, kind)
        if isinstance(found, TextConfig):
            _ = found.rope
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{file} is wrong: {error}.", fix="use the file that the weights were saved with") from None
    return found
