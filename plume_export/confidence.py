"""95 % confidence intervals by SciPy's bootstrap."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 2000
_RESAMPLES_AT_A_TIME = 100  # bounds the memory for many queries


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def bootstrap_interval(samples: Sequence[Sequence[float]], statistic: Callable[..., Any]) -> Interval:
    """Return the percentile bootstrap interval of a statistic of one sample, or of several paired samples.

    `statistic` takes the samples as arrays, and the axis to reduce as `axis`. For a single value, low and high are equal.
    """
    from scipy.stats import bootstrap

    if len(samples[0]) < 2:
        value = float(statistic(*map(np.asarray, samples), axis=-1))
        return Interval(value, value)
    interval = bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES_AT_A_TIME,
        paired=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=0,
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))
