"""Whether the forced texts around the rollout lead where the model's states are read."""

from ..errors import BundleError, CheckpointError, OptionError, PlumeExportError
from ..preprocess import PromptTokenizer
from ..spec import ModelSpec

# Flag, and the token at whose state the rollout starts, or the embedding is read.
_LAST_TOKENS = {"prefix": "<bot>", "suffix": "<gen_emb>"}
# The anchor is read at the last <disc_emb> of a prompt, and visual tokens stand for pixels.
_ELSEWHERE = ("<disc_emb>", "<|image_pad|>", "<|video_pad|>")


def check_forced_texts(tokenizer_json: str, model: ModelSpec) -> None:
    """Raise PlumeExportError unless prefix and suffix end with their tokens, hold no other's and leave room for a prompt.

    Raises CheckpointError for a tokenizer that cannot be read or lacks a control token.
    """
    for name, last in _LAST_TOKENS.items():
        text = getattr(model.rollout, name)
        if not text.endswith(last):
            raise OptionError(
                f"The {name} {text!r} does not end with {last}, where the model's state is read.",
                fix=f"--{name} with a text that ends with {last}, or leave it out for the published one",
            )
        if found := [token for token in _ELSEWHERE if token in text]:
            raise OptionError(
                f"The {name} {text!r} holds {found[0]}, which stands before it in every prompt.",
                fix=f"leave it out of --{name}",
            )
    try:
        tokenizer = PromptTokenizer(tokenizer_json, model.rollout)
    except BundleError as error:
        raise CheckpointError(error.message, fix="copy the checkpoint's tokenizer files again") from None
    taken = len(tokenizer.prompt_ids("")) + model.rollout.latent_steps + len(tokenizer.suffix_ids)
    if taken >= model.decoder.max_positions:
        raise PlumeExportError(
            f"Prompt template, prefix, latent steps and suffix take {taken} tokens; the model serves "
            f"{model.decoder.max_positions}, and leaves none for an input.",
            fix="a shorter --prefix or --suffix",
        )
