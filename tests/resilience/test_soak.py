"""Ten seconds of `python -m tests.resilience.soak`, with small pictures."""

import warnings

import pytest

from plume_export.bundle import Bundle

from .soak import soak


@pytest.mark.slow
def test_threads_share_an_embedder(tiny_cpu: Bundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is skipped
        result = soak(tiny_cpu.path, seconds=10, threads=8, calls=30, most_pixels=150)
    assert result.unexpected == []
    assert result.is_good
    assert set(result.rows) <= {"equal", "skipped"}
    assert result.rows["equal"] > 0
    assert result.resident
