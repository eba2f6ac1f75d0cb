"""Stages of several threads add up."""

import threading
import time

import pytest

from plume_export.runtime.stopwatch import Stopwatch


def test_threads_share_a_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage takes one second by a clock that counts its readings by thread."""
    readings = threading.local()

    def clock() -> float:
        readings.count = getattr(readings, "count", 0) + 1
        return float(readings.count)

    monkeypatch.setattr(time, "perf_counter", clock)
    stopwatch = Stopwatch()

    def work() -> None:
        for _ in range(2000):
            with stopwatch.stage("a"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stopwatch.seconds == {"a": 8000.0}
    stopwatch.reset()
    assert stopwatch.seconds == {}
