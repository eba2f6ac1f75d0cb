"""The curve through a sweep, on times that are known."""

import math

import pytest

from plume_export.bench.sweep import cost_curve, prompt_sizes

SIZES = [64, 128, 256, 512, 1024, 2048, 4096]


def times(fixed: float, linear: float, quadratic: float) -> list[float]:
    return [fixed + linear * size + quadratic * size * size for size in SIZES]


def test_a_known_curve_is_found() -> None:
    curve = cost_curve(SIZES, times(20, 0.1, 2e-5))
    assert (curve.fixed_ms, curve.linear_ms, curve.quadratic_ms) == pytest.approx((20, 0.1, 2e-5))
    assert curve.worst_error < 1e-9
    assert curve.cheapest_size == pytest.approx(math.sqrt(20 / 2e-5))
    assert curve.cheapest_ms_per_unit == pytest.approx(0.1 + 2 * math.sqrt(20 * 2e-5))


def test_the_rise_costs_a_quarter_more() -> None:
    curve = cost_curve(SIZES, times(20, 0.1, 2e-5))
    assert curve.rises_at is not None
    assert curve.rises_at > curve.cheapest_size
    assert curve.milliseconds(curve.rises_at) / curve.rises_at == pytest.approx(1.25 * curve.cheapest_ms_per_unit)


def test_no_rise_within_what_was_measured() -> None:
    level = cost_curve(SIZES, times(20, 0.1, 0))
    assert level.rises_at is None
    assert level.cheapest_size == SIZES[-1]
    assert cost_curve(SIZES, times(20, 0.1, 1e-9)).rises_at is None


def test_no_coefficient_is_negative() -> None:
    curve = cost_curve(SIZES, [10 + math.sqrt(size) for size in SIZES])
    assert min(curve.fixed_ms, curve.linear_ms, curve.quadratic_ms) >= 0
    assert 0 < curve.worst_error < 1


def test_the_shortest_prompt_stands_for_sizes_below_it() -> None:
    assert prompt_sizes(35, 300) == [64, 128, 256]
    assert prompt_sizes(86, 32768) == [86, 128, 256, 512, 1024, 2048, 4096]
