"""An embedder without a model, whose embeddings show which inputs shared a batch, and of which window."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import SimpleNamespace

import numpy as np

from plume_export.errors import InputError
from plume_export.inputs import Item, MediaOptions, Notice


@dataclass(frozen=True)
class PreparedDouble:
    text: str
    patch_count: int = 0
    notices: tuple[Notice, ...] = ()


class EmbedderDouble:
    """Takes "bad" for an input that cannot be embedded, and "sideways" for a rotated picture.

    `stop_after` inputs it is killed, in mid-window.
    """

    dimension = 8

    def __init__(self, *, stop_after: int | None = None, **settings: object) -> None:
        self.mode, self.steps, self.allow_control_tokens = "gen", 8, False
        self.media_options = MediaOptions()
        self.bundle = SimpleNamespace(cache_key="bundle")
        self.embedded = 0
        self.checked: list[int | None] = []
        self._stop_after = stop_after
        vars(self).update(settings)

    def checked_batch_size(self, batch_size: int | None) -> int:
        self.checked.append(batch_size)
        return batch_size or 8

    def prepare(self, item: Item) -> PreparedDouble:
        if item.text == "bad":
            raise InputError("The input is bad.", fix="give a good one")
        return PreparedDouble(item.text, notices=(Notice("rotation ignored", "a.jpg"),) if item.text == "sideways" else ())

    def embed_batches(self, prepared: Sequence[PreparedDouble], batch_size: int, advance: Callable[[int], None]) -> np.ndarray:
        window = "\n".join(item.text for item in prepared)
        rows = np.empty((len(prepared), self.dimension), np.float32)
        for row, item in enumerate(prepared):
            if self.embedded == self._stop_after:
                raise KeyboardInterrupt
            self.embedded += 1
            digest = sha256(f"{batch_size} {item.text} {window}".encode()).digest()
            rows[row] = np.nan if item.text == "overflow" else np.frombuffer(digest, np.uint8)[: self.dimension]
            advance(1)
        return rows

    def non_finite_error(self, index: int) -> InputError:
        error = InputError("The embedding is not finite.", fix="leave it out")
        error.index = index
        return error
