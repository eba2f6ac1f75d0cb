"""The least time that something takes: what the hardware allows when nothing disturbs it."""

import time
from collections.abc import Callable

_RUNS_AT_LEAST = 5
_SECONDS = 0.5


def best_seconds(work: Callable[[], object]) -> float:
    """Return the shortest of at least five runs in about half a second, after one that does not count."""
    work()
    best, end, runs = float("inf"), time.perf_counter() + _SECONDS, 0
    while runs < _RUNS_AT_LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best
