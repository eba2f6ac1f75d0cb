"""Few numbers of many times, and who comes when."""

import pytest

from plume_export.bench.process import rotated_rounds
from plume_export.bench.statistics import ratio_of, spread_of


def test_spread_is_interpolated() -> None:
    spread = spread_of([4.0, 1.0, 3.0, 2.0, 5.0])
    assert spread.p50 == 3.0
    assert spread.p95 == pytest.approx(4.8)
    assert spread_of([7.0]).p95 == 7.0


def test_ratio_is_of_the_medians() -> None:
    ratio = ratio_of([2.0, 1.0, 3.0], [8.0, 7.0, 20.0])
    assert ratio.times_faster == 4.0
    assert ratio.low <= 4.0 <= ratio.high


def test_a_slower_round_for_all_leaves_the_interval_narrow() -> None:
    """Rounds are drawn as pairs: what slows both down does not blur the ratio."""
    own = [1.0, 1.0, 10.0, 1.0, 10.0]
    ratio = ratio_of(own, [3 * seconds for seconds in own])
    assert (ratio.times_faster, ratio.low, ratio.high) == pytest.approx((3, 3, 3))


def test_rounds_rotate() -> None:
    assert list(rotated_rounds("ABC", 4)) == [["A", "B", "C"], ["B", "C", "A"], ["C", "A", "B"], ["A", "B", "C"]]
