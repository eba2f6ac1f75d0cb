"""Items to embeddings, window by window: the loop behind the embedder's lists and the command line's files."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ..errors import InputError
from ..preprocess import PreparedInput
from ..preprocess.notice import Notify
from ..progress import Advance
from ..stages import FloatArray
from .windows import is_whole, windows_ahead

if TYPE_CHECKING:
    from .embedder import Embedder

Given = TypeVar("Given")


@dataclass
class EmbeddedWindow(Generic[Given]):
    """Consecutive items. One that could not be embedded has a row of NaN, and by that row its error.

    `is_whole` is false of a window that the end of the items has cut.
    """

    items: list[Given]
    embeddings: FloatArray  # [items, hidden]
    errors: dict[int, InputError]
    is_whole: bool


def embed_windows(
    embedder: "Embedder",
    items: Iterable[Given],
    *,
    read: Callable[[Given], Any],
    identify: Callable[[InputError, Given], None],
    batch_size: int | None,
    is_skipping: bool,
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> Generator[EmbeddedWindow[Given], None, None]:
    """Yield the embeddings of consecutive items as they come. Which batch an item is in depends on its window alone.

    `read` returns what the embedder takes. An InputError gets its item's `index`; unless `is_skipping` it is raised, after
    `identify` has put into it what the user knows the item by.
    """
    batch_size = embedder.checked_batch_size(batch_size)

    def prepared(numbered: tuple[int, Given]) -> _Prepared[Given]:
        index, item = numbered
        try:
            return _Prepared(index, item, embedder.prepare(read(item)))
        except InputError as error:
            error.index = index
            if not is_skipping:
                identify(error, item)
                raise
            return _Prepared(index, item, None, error)

    with closing(windows_ahead(enumerate(items), prepared, batch_size)) as windows:
        for window in windows:
            result = EmbeddedWindow(
                [entry.item for entry in window],
                np.full((len(window), embedder.dimension), np.nan, np.float32),
                {row: entry.error for row, entry in enumerate(window) if entry.error is not None},
                is_whole(window, batch_size),
            )
            rows = [row for row in range(len(window)) if row not in result.errors]
            inputs = [entry.prepared for entry in window if entry.prepared is not None]
            advance(len(result.errors))
            notify(notice for entry in inputs for notice in entry.notices)
            result.embeddings[rows] = embedder.embed_prepared(
                inputs, batch_size=batch_size, advance=advance, allow_non_finite=True
            )
            for row in rows:
                if np.isnan(result.embeddings[row, 0]):
                    error = embedder.non_finite_error(window[row].index)
                    if not is_skipping:
                        identify(error, window[row].item)
                        raise error
                    result.errors[row] = error
            yield result


@dataclass(frozen=True)
class _Prepared(Generic[Given]):
    """An item that was read: ready for the graphs, or why it is not."""

    index: int
    item: Given
    prepared: PreparedInput | None
    error: InputError | None = None

    @property
    def patch_count(self) -> int:
        return 0 if self.prepared is None else self.prepared.patch_count
