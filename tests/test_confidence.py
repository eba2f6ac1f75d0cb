"""Intervals against resampling that is written out."""

from typing import Any

import numpy as np
import pytest

from plume_export.confidence import bootstrap_interval


def ratio_of_means(one: np.ndarray, two: np.ndarray, axis: int = -1) -> Any:
    return np.mean(two, axis=axis) / np.mean(one, axis=axis)


def test_pairs_are_drawn_together() -> None:
    one = [1.0, 1.3, 0.9, 1.1, 2.0, 1.05, 1.2]
    two = [3.0, 2.9, 3.3, 3.1, 4.0, 3.2, 2.8]
    drawn = np.random.default_rng(0).integers(0, 7, (2000, 7))
    ratios = ratio_of_means(np.array(one)[drawn], np.array(two)[drawn])
    assert bootstrap_interval([one, two], ratio_of_means) == pytest.approx(tuple(np.percentile(ratios, (2.5, 97.5))))


def test_one_value_has_no_width() -> None:
    assert bootstrap_interval([[2.0], [3.0]], ratio_of_means) == (1.5, 1.5)
