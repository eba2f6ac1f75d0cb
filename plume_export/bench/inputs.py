"""The inputs of a measurement: files that every contestant reads, and how large each is for the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..bundle import TOKENIZER, Bundle
from ..embed_file import sources_from_file
from ..errors import InputError
from ..preprocess import Item, PreparedInput, Preprocessor
from .drawn_inputs import write_latency_inputs, write_texts


class InputSize(msgspec.Struct, frozen=True):
    """One input as the model sees it. `vision` is [frames, patches] of every image and video; a text's blank image is none."""

    name: str
    prompt_tokens: int
    visual_tokens: int
    vision: list[tuple[int, int]]


@dataclass(frozen=True)
class InputSet:
    """Rows of a JSON lines file that can be measured; `left_out` says why others cannot, by name."""

    file: Path
    rows: list[int]
    sizes: list[InputSize]
    left_out: dict[str, str]


class Sizer:
    """Tells how large inputs are for one bundle's model."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        manifest = bundle.manifest
        text = bundle.file(TOKENIZER).read_text(encoding="utf-8")
        self._preprocessor = Preprocessor(text, manifest.model, limits=manifest.limits)
        self.shortest_prompt = self.prompt_tokens("a")
        self.longest_prompt = self._preprocessor.max_prompt_tokens
        self.suffix_tokens = len(self._preprocessor.suffix_ids)

    def prompt_tokens(self, text: str) -> int:
        """Return the tokens of the prompt that a text becomes."""
        return self._preprocessor.prepare(Item(text=text)).token_count

    def text_tokens(self, text: str) -> int:
        """Return the tokens of a text alone."""
        return self.prompt_tokens(text) - self.shortest_prompt + 1

    def size(self, name: str, item: Item) -> InputSize:
        """Raises InputError for an input that the bundle cannot take."""
        if self.bundle.manifest.modalities == "text" and (item.images or item.video is not None):
            raise InputError("The bundle was built for text only.", fix="leave the input out")
        return _size_of(name, self._preprocessor.prepare(item))


def latency_inputs(sizers: Sequence[Sizer], inputs: Path | None, directory: Path) -> InputSet:
    """Return the user's inputs, or drawn ones. Of the drawn ones, those that a bundle cannot take are left out.

    Raises InputError for an input of the user's that cannot be embedded.
    """
    file = inputs or write_latency_inputs(directory, sizers[0].text_tokens)
    rows, sizes, left_out = [], [], {}
    for row, source in enumerate(sources_from_file(file)):
        try:
            size, *_ = [sizer.size(source.id, source.read()) for sizer in sizers]
        except InputError as error:
            if inputs is not None:
                raise InputError(f"input {source.id!r}: {error.message}", fix=error.fix) from None
            left_out[source.id] = error.message
            continue
        rows.append(row)
        sizes.append(size)
    names = [size.name for size in sizes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{file} has the id {twice!r} more than once.", fix="give every line an id of its own")
    if not rows:
        raise InputError(f"{file} has no input.", fix='write one a line, as {"text": "..."}')
    return InputSet(file, rows, sizes, left_out)


def mixed_texts(sizer: Sizer, count: int, directory: Path) -> Path:
    """Return a file of drawn texts whose throughput is measured."""
    return write_texts(directory, count, sizer.text_tokens)


def _size_of(name: str, prepared: PreparedInput) -> InputSize:
    vision = [(media.patches.shape[0], media.patches.shape[1]) for media in prepared.media if not media.is_blank]
    return InputSize(name, prepared.token_count, prepared.visual_token_count, vision)
