"""Convert a text and its media to token ids: Qwen2-VL's chat template with PLUME's instruction."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..errors import BundleError, InputError
from ..spec import INSTRUCTION, RolloutSpec

SYSTEM_MESSAGE = "You are a helpful assistant."
ANCHOR_TOKEN = "<disc_emb>"
_IMAGE_PAD, _VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
_REQUIRED_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", _IMAGE_PAD, _VIDEO_PAD),
    *("<gen_emb>", ANCHOR_TOKEN, "<bot>", "<eot>"),
)


class PromptTokenizer:
    """Builds the token ids of a prompt, including the fixed prefix.

    By default a user's text is literal: `<|im_end|>` in it stays text. With `allow_control_tokens` the prompt is encoded as one
    string, as in the original code. Texts without control tokens give the same ids either way.

    Raises BundleError if the tokenizer cannot be read or lacks a control token.
    """

    def __init__(self, tokenizer_json: str | bytes, rollout: RolloutSpec, *, allow_control_tokens: bool = False) -> None:
        self._tokenizer, self._text_tokenizer = _tokenizers_from_json(tokenizer_json)
        _check_control_tokens(self._tokenizer)
        self._allow_control_tokens = allow_control_tokens
        self._prefix_ids = self._encode(rollout.prefix)
        self.suffix_ids: NDArray[np.int64] = np.array(self._encode(rollout.suffix), np.int64)
        self.image_token_id, self.video_token_id, self.anchor_token_id = (
            self._encode(token)[0] for token in (_IMAGE_PAD, _VIDEO_PAD, ANCHOR_TOKEN)
        )

    def prompt_ids(
        self, text: str, *, image_token_counts: Sequence[int] = (), video_token_counts: Sequence[int] = ()
    ) -> NDArray[np.int64]:
        """Return int64 [tokens]: images, then videos, then the text. Each image or video takes its number of visual tokens.

        Raises InputError if the text contains visual tokens of its own, which is possible only with `allow_control_tokens`.
        """
        head = f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n<|im_start|>user\n"
        for pad, counts in ((_IMAGE_PAD, image_token_counts), (_VIDEO_PAD, video_token_counts)):
            head += f"<|vision_start|>{pad}<|vision_end|>" * len(counts)
        text = f"{text.strip()}\n"
        tail = f"{ANCHOR_TOKEN}\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
        if self._allow_control_tokens:
            ids = self._encode(head + text + tail)
            self._check_visual_tokens(ids, len(image_token_counts), len(video_token_counts))
        else:
            # The parts meet at control tokens, where a tokenizer would also split the whole string. So the ids are the same.
            ids = [*self._encode(head), *self._text_tokenizer.encode(text, add_special_tokens=False).ids, *self._encode(tail)]
        return self._expanded([*ids, *self._prefix_ids], [*image_token_counts, *video_token_counts])

    def _expanded(self, ids: list[int], visual_token_counts: list[int]) -> NDArray[np.int64]:
        """Repeat the single pad token of each image or video."""
        compact = np.array(ids, np.int64)
        repeats = np.ones(len(compact), np.int64)
        repeats[np.isin(compact, (self.image_token_id, self.video_token_id))] = visual_token_counts
        return np.repeat(compact, repeats)

    def _check_visual_tokens(self, ids: list[int], images: int, videos: int) -> None:
        for pad, pad_id, expected in (
            (_IMAGE_PAD, self.image_token_id, images),
            (_VIDEO_PAD, self.video_token_id, videos),
        ):
            added = ids.count(pad_id) - expected
            if added:
                raise InputError(
                    f"The text contains {pad} {added} time(s), a placeholder for an image or video that was not passed.",
                    fix="remove it from the text, or omit --allow-control-tokens",
                )

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _tokenizers_from_json(tokenizer_json: str | bytes) -> tuple[Tokenizer, Tokenizer]:
    """Return the tokenizer, and the same tokenizer without its added tokens."""
    try:
        plain = json.loads(tokenizer_json) | {"added_tokens": []}
        full_json = tokenizer_json.decode() if isinstance(tokenizer_json, bytes) else tokenizer_json
        with panics_as_errors():
            tokenizers = (Tokenizer.from_str(full_json), Tokenizer.from_str(json.dumps(plain)))
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleError(f"The tokenizer cannot be read: {error}.", fix="export the bundle again") from error
    for tokenizer in tokenizers:
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizers


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise RuntimeError if the tokenizers library, which is written in Rust, panics. A panic is not an Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"the tokenizers library failed ({error})") from None


def _check_control_tokens(tokenizer: Tokenizer) -> None:
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    missing = [token for token in _REQUIRED_TOKENS if token not in added]
    if missing:
        raise BundleError(
            f"The tokenizer lacks the added token(s) {' '.join(missing)}.",
            fix="export from a PLUME checkpoint with the tokenizer that it was trained with",
        )
