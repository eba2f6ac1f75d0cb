"""How the cost of an input grows with its size: a curve through measured times, and where a unit starts to cost more."""

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np

# A unit costs more than at its cheapest by this factor.
RISE = 1.25


class CostCurve(msgspec.Struct, frozen=True):
    """milliseconds = fixed + linear * size + quadratic * size^2, no coefficient below 0, fitted by relative error.

    `cheapest_size` has the least cost of a unit within the measured sizes. `rises_at` is where a unit costs a quarter more
    than there, beyond it; None: not within the measured sizes. `worst_error` is the largest relative error of the fit.
    """

    fixed_ms: float
    linear_ms: float
    quadratic_ms: float
    worst_error: float
    cheapest_size: float
    cheapest_ms_per_unit: float
    rises_at: float | None

    def milliseconds(self, size: float) -> float:
        return self.fixed_ms + self.linear_ms * size + self.quadratic_ms * size * size


def cost_curve(sizes: Sequence[float], milliseconds: Sequence[float]) -> CostCurve:
    """Fit a curve to at least three sizes, in rising order."""
    x, y = np.array(sizes, np.float64), np.array(milliseconds, np.float64)
    coefficients = _non_negative_fit(np.stack([np.ones_like(x), x, x * x], 1) / y[:, None])
    fixed, linear, quadratic = (float(value) for value in coefficients)
    fitted = fixed + linear * x + quadratic * x * x
    cheapest = float(np.clip(np.sqrt(fixed / quadratic), x[0], x[-1])) if quadratic > 0 else float(x[-1])
    least = fixed / cheapest + linear + quadratic * cheapest
    # quadratic s^2 + (linear - RISE least) s + fixed = 0 has two sizes with that cost; the larger one lies behind the cheapest.
    slope = RISE * least - linear
    root = (slope + np.sqrt(max(slope**2 - 4 * quadratic * fixed, 0))) / (2 * quadratic) if quadratic > 0 else np.inf
    return CostCurve(
        fixed_ms=fixed,
        linear_ms=linear,
        quadratic_ms=quadratic,
        worst_error=float(np.abs(fitted / y - 1).max()),
        cheapest_size=cheapest,
        cheapest_ms_per_unit=float(least),
        rises_at=float(root) if root <= x[-1] else None,
    )


def _non_negative_fit(columns: np.ndarray) -> np.ndarray:
    """Return the coefficients >= 0 whose combination of the columns is nearest to 1: the best of all subsets of columns."""
    best, best_error = np.zeros(3), float(len(columns))
    for count in (1, 2, 3):
        for chosen in itertools.combinations(range(3), count):
            part, *_ = np.linalg.lstsq(columns[:, chosen], np.ones(len(columns)), rcond=None)
            error = float(((columns[:, chosen] @ part - 1) ** 2).sum())
            if (part >= 0).all() and error < best_error:
                best, best_error = np.zeros(3), error
                best[list(chosen)] = part
    return best
