"""Summaries of many measured times."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from ..confidence import bootstrap_interval
from ..stages import FloatArray


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
    """Return how many times faster `own` is than `others`. Values with the same index must be from the same round."""
    times_faster = float(_ratio_of_medians(np.asarray(own), np.asarray(others)))
    return Ratio(times_faster, *bootstrap_interval([own, others], _ratio_of_medians))


def _ratio_of_medians(own: FloatArray, others: FloatArray, axis: int = -1) -> Any:
    return np.median(others, axis=axis) / np.median(own, axis=axis)
