"""An embedder without a model: a picture's or a text's embedding is its colour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import ImageColor

from plume_export.bundle.manifest import CheckpointOrigin
from plume_export.errors import InputError
from plume_export.inputs import Item, MediaOptions, Notice, load_image


@dataclass(frozen=True)
class PreparedColour:
    colour: tuple[float, ...]
    patch_count: int = 4
    notices: tuple[Notice, ...] = ()


class ColourEmbedder:
    """Red, green and blue less a half are the three numbers. `fails` on names of pictures that a bundle cannot take."""

    dimension = 3

    def __init__(self, fails: Sequence[str] = (), *, exif_transpose: bool = False) -> None:
        self.media_options = MediaOptions(exif_transpose)
        manifest = SimpleNamespace(checkpoint=CheckpointOrigin(name="/models/colours"), backend="double", precision="fp32")
        self.bundle: Any = SimpleNamespace(sha256="0" * 64, cache_key="0" * 64, manifest=manifest)
        self.prepared = 0
        self._fails = fails

    def checked_batch_size(self, batch_size: int | None) -> int:
        return batch_size or 8

    def prepare(self, item: Item) -> PreparedColour:
        self.prepared += 1
        for image in item.images:
            if any(name in str(image) for name in self._fails):
                raise InputError("The picture is too large for this bundle.", fix="compile another")
            notices: list[Notice] = []
            loaded = load_image(image, exif_transpose=self.media_options.exif_transpose, notify=notices.extend)
            return PreparedColour(loaded.getpixel((0, 0)), notices=tuple(notices))  # of the upper left corner
        return PreparedColour(ImageColor.getrgb(item.text))

    def embed_prepared(self, prepared: Sequence[PreparedColour]) -> np.ndarray:
        return self.embed_batches(prepared, 8, lambda _: None)

    def embed_batches(self, prepared: Sequence[PreparedColour], batch_size: int, advance: Callable[[int], None]) -> np.ndarray:
        advance(len(prepared))
        rows = np.array([item.colour for item in prepared], np.float32).reshape(-1, 3) / 255 - 0.5
        unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit
