"""Calls of `embed` with items of every kind, good and bad, drawn from a number: the same number is always the same call."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import numpy as np
from PIL import Image

from plume_export import Embedder
from plume_export.errors import InputError

_WORDS = ("red", "circle", "two", "a page about", "rivers", "café", "東京", "🙂", "<|im_end|>", "\n", "12345", "left of")
_MOST_ITEMS = 12


@dataclass(frozen=True)
class Call:
    """Arguments of `Embedder.embed`. An item that is bad is an error, or with `on_error="skip"` a row of NaN."""

    items: list[Any]
    batch_size: int | None
    on_error: Literal["raise", "skip"]

    def run(self, embedder: Embedder) -> np.ndarray | str:
        """Return the embeddings [items, hidden], or the error that it ends with, with its item."""
        try:
            return embedder.embed(self.items, batch_size=self.batch_size, on_error=self.on_error)
        except InputError as error:
            return f"item {error.index}: {error}"


def mixed_call(number: int, most_pixels: int) -> Call:
    """Return a call of 1 to 12 items; pictures are up to `most_pixels` wide and high."""
    random = Random(number)
    kinds: tuple[Callable[[Random, int], Any], ...] = (_text, _picture_item, _pictures_item, _video_item)
    count = random.randrange(1, _MOST_ITEMS + 1)
    items = [random.choices(kinds, weights=(4, 4, 1, 1))[0](random, most_pixels) for _ in range(count)]
    if random.random() < 0.2:
        items.insert(random.randrange(count + 1), random.choice(_BAD))
    return Call(items, random.choice((None, 1, 3, 8)), random.choice(("raise", "skip")))


def _text(random: Random, _: int) -> str:
    length = random.choice((1, 5, 20, 200))
    return " ".join(random.choice(_WORDS) for _ in range(length)) + str(random.random())


def _picture(random: Random, most_pixels: int) -> Image.Image:
    """Noise in few pixels, scaled: large pictures of few kinds, small ones of many."""
    noise = Image.frombytes("RGB", (7, 5), random.randbytes(105))
    most = most_pixels if random.random() < 0.2 else max(64, most_pixels // 4)
    size = (random.randrange(8, most), random.randrange(8, most))
    return noise.resize(size).convert(random.choice(("RGB", "RGB", "L", "RGBA", "P", "1")))


def _picture_item(random: Random, most_pixels: int) -> Any:
    picture = _picture(random, most_pixels)
    return picture if random.random() < 0.5 else {"text": _text(random, 0), "image": picture}


def _pictures_item(random: Random, most_pixels: int) -> Any:
    return {"text": "what changed?", "image": [_picture(random, most_pixels // 4) for _ in range(random.randrange(2, 5))]}


def _video_item(random: Random, most_pixels: int) -> Any:
    frame = _picture(random, most_pixels // 4).convert("RGB")
    return {"video": [frame.rotate(10 * step) for step in range(random.randrange(1, 6))], "text": "what moves?"}


_BAD: tuple[Any, ...] = (
    None,
    7,
    {},
    {"image": "no/such/picture.png"},
    {"image": b"no picture"},
    {"colour": "red"},
    {"text": 5},
    {"video": []},
    Image.new("RGB", (4000, 8)),
    Image.new("I;16", (30, 30)),
    np.zeros((3, 3, 7), np.uint8),
)
