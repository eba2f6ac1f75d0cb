"""Inputs cut into windows, and windows into batches; the next window is prepared while the last one is embedded."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import Protocol, TypeVar

# Of so many batches, lengths are sorted: enough for batches of nearly equal lengths, few enough to be done soon.
_BATCHES = 16
# Pixels take 0.6 kB a patch (1.2 kB of a video), and two windows are in memory.
_PATCHES = 8192


class Prepared(Protocol):
    """What is ready for the graphs."""

    @property
    def patch_count(self) -> int: ...


_Raw = TypeVar("_Raw")
_Prepared = TypeVar("_Prepared", bound=Prepared)


def windows_ahead(
    items: Iterable[_Raw], prepare: Callable[[_Raw], _Prepared], batch_size: int
) -> Generator[Sequence[_Prepared], None, None]:
    """Yield all items, prepared and in order, in windows that depend on the items alone.

    While a window is used, a thread prepares the next one. `items` is read in the caller's thread. What `prepare` raises is
    raised where its window would come. A caller that stops early closes the generator, which waits for one item at most.
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
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as thread:  # started by its first task: not for one window
        try:
            while window:
                waiting.extend(islice(unread, most_items - len(waiting)))
                following = thread.submit(next_window) if waiting else None
                yield window
                window = [] if following is None else following.result()
        finally:
            is_stopped.set()


def is_whole(window: Sequence[Prepared], batch_size: int) -> bool:
    """Whether a window takes no more: it has all its batches, or the last batch brought enough pixels."""
    if len(window) % batch_size:
        return False
    return len(window) >= _BATCHES * batch_size or sum(item.patch_count for item in window) >= _PATCHES


def rows_by_length(token_counts: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the rows of each batch, the longest prompts first, so that memory is at its most at once.

    A prompt of less than half the longest's tokens starts another batch: less than half of a batch is padding.
    """
    batch: list[int] = []
    for row in sorted(range(len(token_counts)), key=lambda row: -token_counts[row]):
        if len(batch) == batch_size or (batch and 2 * token_counts[row] < token_counts[batch[0]]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
