"""The JSON files that stand beside the weights of a published checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path

from ..spec import ModelSpec


def write_config_files(directory: Path, model: ModelSpec, token_ids: Mapping[str, int], *, dtype: str, is_nested: bool) -> None:
    """Write config.json (flat as transformers 4.51, or with `text_config` as 4.52), generation and preprocessor config."""
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
