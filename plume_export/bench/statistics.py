"""Summaries of many measured times."""

from collections.abc import Sequence

import msgspec
import numpy as np

_RESAMPLES = 2000


class Spread(msgspec.Struct, frozen=True):
    """Median and 95th percentile."""

    p50: float
    p95: float


class Ratio(msgspec.Struct, frozen=True):
    """How many times faster one candidate is than another: ratio of medians with a 95 % bootstrap interval over the rounds."""

    times_faster: float
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """Return median and 95th percentile, interpolated between values."""
    p50, p95 = np.percentile(values, (50, 95))
    return Spread(float(p50), float(p95))


def ratio_of(own: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return how many times faster `own` is than `others`. Values with the same index were measured in the same round."""
    pair = np.array([own, others])  # [2, rounds]
    drawn = np.random.default_rng(0).integers(0, pair.shape[1], (_RESAMPLES, pair.shape[1]))
    own_medians, others_medians = np.median(pair[:, drawn], axis=-1)
    low, high = np.percentile(others_medians / own_medians, (2.5, 97.5))
    return Ratio(float(np.median(others) / np.median(own)), float(low), float(high))
