"""Many measured times as few numbers."""

from collections.abc import Sequence

import msgspec
import numpy as np


class Spread(msgspec.Struct, frozen=True):
    """Median and 95th percentile."""

    p50: float
    p95: float


class Ratio(msgspec.Struct, frozen=True):
    """How many times faster the bundle is than another: of the medians; 5th and 95th percentile over the rounds."""

    times_faster: float
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """Return median and 95th percentile, interpolated between values."""
    p50, p95 = np.percentile(values, (50, 95))
    return Spread(float(p50), float(p95))


def ratio_of(own: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return how many times faster `own` is than `others`; value i of both was measured in round i."""
    by_round = np.array(others) / np.array(own)
    low, high = np.percentile(by_round, (5, 95))
    return Ratio(float(np.median(others) / np.median(own)), float(low), float(high))
