"""Windows of inputs, split into batches. The next window is prepared while the current one is embedded."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from ..errors import InputError
from ..inputs import PreparedInput
from ..inputs.notice import Notify
from ..progress import Advance
from ..stages import FloatArray

if TYPE_CHECKING:
    from .embedder import Embedder


# Maximum number of batches per window. Inputs are sorted by length within a window. It is large enough for batches of similar
# lengths, and small enough that the first results come soon.
_BATCHES = 16
# Patches after which a window is full. Pixels take 0.6 kB per patch (1.2 kB for a video), and two windows are in memory.
_PATCHES = 8192


class Prepared(Protocol):
    """An input that is ready for the graphs."""

    @property
    def patch_count(self) -> int: ...


_Raw = TypeVar("_Raw")
_Prepared = TypeVar("_Prepared", bound=Prepared)


def windows_ahead(
    items: Iterable[_Raw], prepare: Callable[[_Raw], _Prepared], batch_size: int
) -> Generator[Sequence[_Prepared], None, None]:
    """Yield all items, prepared and in order, in windows. Where a window ends depends only on the items, not on timing.

    While a window is used, a thread prepares the next one. `items` is read in the caller's thread. If `prepare` raises, the
    error is raised instead of yielding the window. A caller that stops early must close the generator, which waits for at
    most one item.
    """
    unread, waiting, is_stopped = iter(items), deque[_Raw](), Event()
    most_items = _BATCHES * batch_size

    def next_window() -> list[_Prepared]:
        window: list[_Prepared] = []
        while waiting and not is_whole(window, batch_size) and not is_stopped.is_set():
            window.append(prepare(waiting.popleft()))
        return window

    waiting.extend(islice(unread, most_items))
    window = next_window()
    with ThreadPoolExecutor(
        1, thread_name_prefix="prepare"
    ) as thread:  # the thread starts with its first task, so not for a single window
        try:
            while window:
                waiting.extend(islice(unread, most_items - len(waiting)))
                following = thread.submit(next_window) if waiting else None
                yield window
                window = [] if following is None else following.result()
        finally:
            is_stopped.set()


def is_whole(window: Sequence[Prepared], batch_size: int) -> bool:
    """Return True if a window is full: its batches are complete, and it has reached the maximum of batches or of patches."""
    if len(window) % batch_size:
        return False
    return len(window) >= _BATCHES * batch_size or sum(item.patch_count for item in window) >= _PATCHES


def rows_by_length(token_counts: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the rows of each batch. The longest prompts come first, so that peak memory is reached at once.

    A prompt shorter than half of the batch's longest starts a new batch, so that less than half of a batch is padding.
    """
    batch: list[int] = []
    for row in sorted(range(len(token_counts)), key=lambda row: -token_counts[row]):
        if len(batch) == batch_size or (batch and 2 * token_counts[row] < token_counts[batch[0]]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


Given = TypeVar("Given")


@dataclass
class EmbeddedWindow(Generic[Given]):
    """Consecutive items. An item that could not be embedded has a row of NaN; `errors` maps its row to the error.

    `is_whole` is False if the items ended before the window was full.
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
    batch_size: int,
    is_skipping: bool,
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> Generator[EmbeddedWindow[Given], None, None]:
    """Yield the embeddings of consecutive items as they are computed. An item's batch depends only on its window.

    `read` converts an item to what the embedder accepts. An InputError gets the `index` of its item. Unless `is_skipping`, it
    is raised, after `identify` has added the name by which the user knows the item.
    """

    def prepared(numbered: tuple[int, Given]) -> _PreparedItem[Given]:
        index, item = numbered
        try:
            return _PreparedItem(index, item, embedder.prepare(read(item)))
        except InputError as error:
            error.index = index
            if not is_skipping:
                identify(error, item)
                raise
            return _PreparedItem(index, item, None, error)

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
            result.embeddings[rows] = embedder.embed_batches(inputs, batch_size, advance)
            for row in rows:
                if np.isnan(result.embeddings[row, 0]):
                    error = embedder.non_finite_error(window[row].index)
                    if not is_skipping:
                        identify(error, window[row].item)
                        raise error
                    result.errors[row] = error
            yield result


@dataclass(frozen=True)
class _PreparedItem(Generic[Given]):
    """An item after reading and preprocessing: the prepared input, or the error."""

    index: int
    item: Given
    prepared: PreparedInput | None
    error: InputError | None = None

    @property
    def patch_count(self) -> int:
        return 0 if self.prepared is None else self.prepared.patch_count
