"""Read a checkpoint's tokenizer, and check that prefix and suffix end with the tokens whose hidden states are used."""

from pathlib import Path
from typing import Any

import msgspec

from ..errors import BundleError, CheckpointError, OptionError, PlumeExportError
from ..inputs import PromptTokenizer
from ..inputs.prompt import panics_as_errors
from ..spec import ModelSpec

# The token that each fixed text must end with. The latent steps start from the state at <bot>; the state at <gen_emb> gives the
# embedding.
_LAST_TOKENS = {"prefix": "<bot>", "suffix": "<gen_emb>"}
# Tokens that prefix and suffix must not contain: the anchor is the state at the last <disc_emb>, and visual tokens stand for
# pixels.
_ELSEWHERE = ("<disc_emb>", "<|image_pad|>", "<|video_pad|>")


def check_forced_texts(tokenizer_json: str, model: ModelSpec) -> None:
    """Raise PlumeExportError unless prefix and suffix end with the right tokens, contain no others, and leave room for input.

    Raises CheckpointError for a tokenizer that cannot be read or lacks a control token.
    """
    for name, last in _LAST_TOKENS.items():
        text = getattr(model.rollout, name)
        if not text.endswith(last):
            raise OptionError(
                f"The {name} {text!r} does not end with {last}, the token whose hidden state is used.",
                fix=f"pass --{name} with a text that ends with {last}, or omit it for the original one",
            )
        if found := [token for token in _ELSEWHERE if token in text]:
            raise OptionError(
                f"The {name} {text!r} contains {found[0]}, which may occur only in the prompt before the {name}.",
                fix=f"remove it from --{name}",
            )
    try:
        tokenizer = PromptTokenizer(tokenizer_json, model.rollout)
    except BundleError as error:
        raise CheckpointError(error.message, fix="copy the checkpoint's tokenizer files again") from None
    taken = len(tokenizer.prompt_ids("")) + model.rollout.latent_steps + len(tokenizer.suffix_ids)
    if taken >= model.decoder.max_positions:
        raise PlumeExportError(
            f"Prompt template, prefix, latent steps and suffix take {taken} tokens. The model has "
            f"{model.decoder.max_positions} positions, which leaves none for an input.",
            fix="pass a shorter --prefix or --suffix",
        )


REQUIRED_TOKENS = ("<gen_emb>", "<disc_emb>", "<bot>", "<eot>")


class _AddedToken(msgspec.Struct):
    content: str
    id: int


class _TokenizerFile(msgspec.Struct):
    """The keys of tokenizer.json that are read here."""

    added_tokens: list[_AddedToken]


def tokenizer_json_from_checkpoint(directory: Path, vocab: int) -> str:
    """Return the text of tokenizer.json: as stored, or converted from vocab.json and merges.txt.

    Raises CheckpointError for a missing tokenizer, a tokenizer without PLUME's tokens, or a token id of `vocab` or more.
    """
    file = directory / "tokenizer.json"
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else _converted(directory)
        added = {token.content: token.id for token in msgspec.json.decode(text, type=_TokenizerFile).added_tokens}
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise CheckpointError(f"{file} is corrupt: {error}.", fix="copy the checkpoint's tokenizer again") from None
    missing = [token for token in REQUIRED_TOKENS if token not in added]
    if missing:
        raise CheckpointError(
            f"The tokenizer of {directory} lacks PLUME's token(s) {' '.join(missing)}.",
            fix="use the tokenizer that was saved with the PLUME checkpoint, not the base model's",
        )
    largest = max(added, key=lambda token: added[token])
    if added[largest] >= vocab:
        raise CheckpointError(
            f"The token {largest} has id {added[largest]}, but the embedding has {vocab} rows.",
            fix="use the tokenizer and the weights of the same checkpoint",
        )
    return text


def _converted(directory: Path) -> str:
    missing = [name for name in ("vocab.json", "merges.txt") if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{directory} has no tokenizer.json, and no {' and '.join(missing)} to create it from.",
            fix="copy the checkpoint's tokenizer files",
        )
    from transformers import AutoTokenizer

    try:
        with panics_as_errors():
            tokenizer: Any = AutoTokenizer.from_pretrained(directory)
            return str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # the tokenizers library and its files raise errors without a common class
        raise CheckpointError(
            f"The tokenizer of {directory} cannot be created from vocab.json and merges.txt: {_first_line(error)}.",
            fix="copy the checkpoint's tokenizer files again",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
