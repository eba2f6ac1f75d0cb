"""Train a small byte-level BPE tokenizer with Qwen2-VL's and PLUME's tokens, on a few sentences or on given texts."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ..spec import INSTRUCTION

VOCABULARY = 1200
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
PLUME_TOKENS = ("<gen_emb>", "<disc_emb>", "<bot>", "<eot>", "<ct>")
# Qwen2's split into words, numbers (digit by digit) and punctuation.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = (
    INSTRUCTION,
    "system user assistant You are a helpful assistant.",
    "Represent the given image. Find an everyday image that matches the given caption. Which page answers the question?",
    "Two dogs run along the beach at sunset while a child in a red coat throws a ball into the shallow water.",
    "The quarterly report lists revenue by region; the table on page seven shows costs, margins and the number of staff.",
    "A tall tower stands behind the old bridge, and small boats wait below it for the evening tide to come in.",
    "How many people are in the picture, and what are they doing? What changed between the first and the second photograph?",
    "The recipe needs flour, butter, sugar, three eggs and a little salt; bake it for forty minutes until it is golden brown.",
    "Snow fell all night over the mountains, so the road to the village stayed closed and the school did not open.",
    "She opened the window, looked at the garden and wrote the first sentence of a letter that she would never send.",
    "Search engines compare vectors: two texts that mean the same should lie near each other, whatever words they use.",
)


def write_tokenizer(
    directory: Path, texts: Sequence[str] = _TEXT, *, vocabulary: int = VOCABULARY, whole: Sequence[str] = ()
) -> dict[str, int]:
    """Write tokenizer.json and the files of the slow tokenizer; return the ids of the added tokens.

    `whole` lists strings that are not split into words before merging, so that each can become one token. The tokenizer then
    differs from transformers' Qwen2 tokenizer class, whose split is fixed.
    """
    tokenizer = _trained_tokenizer(texts, vocabulary, whole)
    token_ids: dict[str, int] = {token: tokenizer.token_to_id(token) for token in (*SPECIAL_TOKENS, *PLUME_TOKENS)}
    tokenizer.save(str(directory / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges), encoding="utf-8")
    _write_json(directory / "vocab.json", model["vocab"])
    _write_json(directory / "added_tokens.json", token_ids)
    special_map = {"additional_special_tokens": SPECIAL_TOKENS[1:], "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write_json(directory / "special_tokens_map.json", special_map)
    _write_json(directory / "chat_template.json", {"chat_template": _CHAT_TEMPLATE})
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(token_ids, is_qwen2=not whole))
    return token_ids


def _trained_tokenizer(texts: Sequence[str], vocabulary: int, whole: Sequence[str]) -> Any:
    split = "|".join([*(re.escape(text) for text in whole), _SPLIT])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=True) for token in PLUME_TOKENS])
    return tokenizer


def _tokenizer_config(token_ids: dict[str, int], *, is_qwen2: bool) -> dict[str, object]:
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    return {
        "added_tokens_decoder": {
            str(index): {"content": token, **flags, "normalized": token in PLUME_TOKENS, "special": token in SPECIAL_TOKENS}
            for token, index in token_ids.items()
        },
        "additional_special_tokens": SPECIAL_TOKENS[1:],
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer" if is_qwen2 else "PreTrainedTokenizerFast",
        "unk_token": None,
        "bos_token": None,
        "add_prefix_space": False,
    }


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
