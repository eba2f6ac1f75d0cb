"""The inputs of a benchmark: files that every candidate reads, and the size of each for the model."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..bundle import TOKENIZER, Bundle
from ..errors import InputError
from ..inputs import Item, PreparedInput, Preprocessor, sources_from_file


class InputSize(msgspec.Struct, frozen=True):
    """Size of one input for the model. `vision` has [frames, patches] per image or video; the blank image is not included."""

    name: str
    prompt_tokens: int
    visual_tokens: int
    vision: list[tuple[int, int]]


@dataclass(frozen=True)
class InputSet:
    """The rows of a JSON lines file that can be measured. `left_out` maps the names of all others to reasons."""

    file: Path
    rows: list[int]
    sizes: list[InputSize]
    left_out: dict[str, str]


class Sizer:
    """Computes the sizes of inputs for one bundle's model."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        manifest = bundle.manifest
        text = bundle.file(TOKENIZER).read_text(encoding="utf-8")
        self._preprocessor = Preprocessor(text, manifest.model, limits=manifest.limits)
        self.shortest_prompt = self.prompt_tokens("a")
        self.longest_prompt = self._preprocessor.max_prompt_tokens
        self.suffix_tokens = len(self._preprocessor.suffix_ids)

    def prompt_tokens(self, text: str) -> int:
        """Return the number of tokens of the prompt of a text."""
        return self._preprocessor.prepare(Item(text=text)).token_count

    def text_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, without the prompt template."""
        return self.prompt_tokens(text) - self.shortest_prompt + 1

    def size(self, name: str, item: Item) -> InputSize:
        """Return the size of an input. Raises InputError if the bundle does not accept it."""
        if self.bundle.manifest.modalities == "text" and (item.images or item.video is not None):
            raise InputError("The bundle was built for text only.", fix="omit the input")
        return _size_of(name, self._preprocessor.prepare(item))


def latency_inputs(sizers: Sequence[Sizer], inputs: Path | None, directory: Path) -> InputSet:
    """Return the user's inputs, or else generated ones. Generated inputs that some bundle does not accept are left out.

    Raises InputError if one of the user's inputs cannot be embedded.
    """
    file = inputs or write_latency_inputs(directory, sizers[0].text_tokens)
    rows, sizes, left_out = [], [], {}
    for row, source in enumerate(sources_from_file(file)):
        try:
            size, *_ = [sizer.size(source.id, source.read()) for sizer in sizers]
        except InputError as error:
            if inputs is not None:
                raise InputError(f"input {source.id!r}: {error.message}", fix=error.command_line_fix) from None
            left_out[source.id] = error.message
            continue
        rows.append(row)
        sizes.append(size)
    names = [size.name for size in sizes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{file} has the id {twice!r} more than once.", fix="give every line its own id")
    if not rows:
        raise InputError(f"{file} has no inputs.", fix='write one input per line, such as {"text": "..."}')
    return InputSet(file, rows, sizes, left_out)


def mixed_texts(sizer: Sizer, count: int, directory: Path) -> Path:
    """Return a file of generated texts for measuring throughput."""
    return write_texts(directory, count, sizer.text_tokens)


def _size_of(name: str, prepared: PreparedInput) -> InputSize:
    vision = [(media.patches.shape[0], media.patches.shape[1]) for media in prepared.media if not media.is_blank]
    return InputSize(name, prepared.token_count, prepared.visual_token_count, vision)


TEXT_TOKENS = 64
PICTURE_PIXELS = 448
# Lengths of the texts for throughput, in tokens. They differ, so that the cost of padding is included.
_MIXED_TOKENS = (32, 96, 48, 64, 80, 40, 112, 56)
_STORY = (
    "the old station by the river was quiet in the early light and two people with a small dog waited for a train to the coast "
    "while behind them a red wagon stood on a track that nobody had used since the bridge upstream was closed to traffic"
)
# Returns the number of tokens of a text.
CountTokens = Callable[[str], int]


def write_latency_inputs(directory: Path, count_tokens: CountTokens) -> Path:
    """Write three inputs and return their JSON lines file: a text, one image with the text, three images with the text."""
    text = text_of_tokens(TEXT_TOKENS, count_tokens)
    pictures = [write_picture(directory, PICTURE_PIXELS, seed) for seed in range(3)]
    lines: list[Mapping[str, object]] = [
        {"id": "text", "text": text},
        {"id": "picture", "text": text, "image": pictures[0]},
        {"id": "3 pictures", "text": text, "image": pictures},
    ]
    return write_lines(directory / "latency.jsonl", lines)


def write_texts(directory: Path, count: int, count_tokens: CountTokens) -> Path:
    """Write texts of mixed lengths and return their JSON lines file."""
    tokens = [_MIXED_TOKENS[row % len(_MIXED_TOKENS)] for row in range(count)]
    lines = [{"id": str(row), "text": text_of_tokens(size, count_tokens, row)} for row, size in enumerate(tokens)]
    return write_lines(directory / "texts.jsonl", lines)


def write_lines(file: Path, lines: Sequence[Mapping[str, object]]) -> Path:
    """Write one input per line."""
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def text_of_tokens(tokens: int, count_tokens: CountTokens, start: int = 0) -> str:
    """Return a text with the given number of tokens: words, then single letters until the number is reached."""
    story = _STORY.split()

    def words(count: int) -> str:
        return " ".join(story[(start + index) % len(story)] for index in range(count))

    least, most = 1, max(2, tokens + 1)  # a word has at least one token
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if count_tokens(words(middle)) <= tokens else (least, middle)
    text = words(least)
    while count_tokens(longer := text + " a") <= tokens:
        text = longer
    return text


def write_picture(directory: Path, pixels: int, seed: int) -> str:
    """Generate a square image with the given number of pixels and return the name of its JPEG file."""
    name = f"picture-{pixels}-{seed}.jpg"
    _scene(pixels, np.random.default_rng(seed)).save(directory / name, quality=92)
    return name


def _scene(pixels: int, random: np.random.Generator) -> Image.Image:
    """Return a scene of sky, hills, lit houses and grain: smooth and sharp areas, like a photograph."""
    rows = np.linspace(0, 1, pixels)[:, None, None]
    sky, ground = random.uniform(120, 230, 3), random.uniform(20, 110, 3)
    canvas = Image.fromarray(np.broadcast_to(sky * (1 - rows) + ground * rows, (pixels, pixels, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for hill in range(3):
        line = pixels * (0.45 + 0.1 * hill) + pixels * 0.04 * np.cumsum(random.normal(0, 0.3, 33))
        points = [(pixels * x / 32, y) for x, y in enumerate(line)]
        draw.polygon([*points, (pixels, pixels), (0, pixels)], fill=tuple(int(v) for v in ground * (0.9 - 0.2 * hill)))
    for left, top, width in random.uniform((0, 0.45, 0.04), (0.9, 0.75, 0.16), (9, 3)):
        box = [pixels * left, pixels * top, pixels * (left + width), pixels * (top + 1.4 * width)]
        draw.rectangle(box, fill=tuple(int(v) for v in random.integers(60, 250, 3)))
        window = [box[0] + 2, box[1] + 2, box[0] + 2 + pixels * width / 4, box[1] + 2 + pixels * width / 3]
        draw.rectangle(window, fill=(250, 230, 140))
    soft = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.6)), np.float64)
    return Image.fromarray(np.clip(soft + random.normal(0, 6, soft.shape), 0, 255).astype(np.uint8))
