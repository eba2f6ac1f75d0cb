"""Windows of inputs: how they are cut, what a thread does ahead, and how errors and an early end come out of it."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from plume_export.errors import InputError
from plume_export.runtime.windows import is_whole, rows_by_length, windows_ahead


@dataclass(frozen=True)
class Prepared:
    number: int
    patch_count: int = 0
    thread: int = 0


def prepared(number: int) -> Prepared:
    return Prepared(number, thread=threading.get_ident())


def numbers(windows: Iterator[list[Prepared]]) -> list[list[int]]:
    return [[item.number for item in window] for window in windows]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 43])
def test_every_item_once_and_in_order(count: int) -> None:
    windows = numbers(windows_ahead(iter(range(count)), prepared, 1))
    assert [number for window in windows for number in window] == list(range(count))
    assert [len(window) for window in windows] == [16] * (count // 16) + [count % 16] * (count % 16 > 0)


def test_a_window_ends_early_with_many_pixels() -> None:
    """But not within a batch."""
    patches = [100, 8000, 8000, 100, 40000, 100, 100]
    windows = list(windows_ahead(range(7), lambda number: Prepared(number, patches[number]), 2))
    assert numbers(windows) == [[0, 1, 2, 3], [4, 5], [6]]
    assert [is_whole(window, 2) for window in windows] == [True, True, False]
    behind = windows_ahead(range(4, 7), lambda number: Prepared(number, patches[number]), 2)
    assert numbers(behind) == [[4, 5], [6]]  # the cuts do not depend on where one begins


def test_a_thread_prepares_the_next_window_and_items_are_read_here() -> None:
    here = threading.get_ident()
    readers = []

    def items() -> Iterator[int]:
        for number in range(40):
            readers.append(threading.get_ident())
            yield number

    windows = list(windows_ahead(items(), prepared, 1))
    assert set(readers) == {here}
    assert {item.thread == here for item in windows[0]} == {True}
    assert {item.thread == here for window in windows[1:] for item in window} == {False}


def test_one_window_needs_no_thread() -> None:
    before = threading.active_count()
    windows = windows_ahead(range(16), prepared, 1)
    next(windows)
    assert threading.active_count() == before
    windows.close()


def test_an_error_comes_where_its_window_would() -> None:
    def failing(number: int) -> Prepared:
        if number == 40:
            raise InputError("forty")
        return prepared(number)

    windows = windows_ahead(range(60), failing, 1)
    assert [[item.number for item in next(windows)] for _ in range(2)] == [list(range(16)), list(range(16, 32))]
    with pytest.raises(InputError, match="forty"):
        next(windows)


def test_closing_early_waits_for_one_item_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    begun, released = threading.Event(), threading.Event()
    seen = []

    def slow(number: int) -> Prepared:
        seen.append(number)
        if number == 17:
            begun.set()
            released.wait(10)
        return prepared(number)

    windows = windows_ahead(range(1000), slow, 1)
    next(windows)
    assert begun.wait(10)
    threading.Timer(0.05, released.set).start()
    windows.close()
    assert seen == list(range(18))
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("prepare")]


def test_one_window_ahead_and_no_more() -> None:
    seen = []
    windows = windows_ahead(range(100), lambda number: (seen.append(number), prepared(number))[1], 1)
    next(windows)
    deadline = time.monotonic() + 5
    while len(seen) < 32 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(seen) == 32
    windows.close()


def test_batches_of_like_lengths() -> None:
    assert list(rows_by_length([5, 9, 5, 7, 9], 2)) == [[1, 4], [3, 0], [2]]
    assert list(rows_by_length([100, 20, 49, 50, 700, 24], 8)) == [[4], [0, 3], [2], [5, 1]]
    assert list(rows_by_length([], 8)) == []
