"""Metrics, intervals and agreement on rankings whose values are known."""

import math

import numpy as np
import pytest

from plume_export.errors import InputError
from plume_export.evaluation.compare import compare_rankings
from plume_export.evaluation.metrics import measure_quality
from plume_export.evaluation.ranking import RankedQuery, TaskRanking

NAMES = tuple(f"c{index:02}" for index in range(20))


def ranked(name: str, *ranks: int) -> RankedQuery:
    """A query whose positives are the candidates at these ranks, counted from 1."""
    scores = np.linspace(0.9, -0.9, len(NAMES), dtype=np.float32)
    return RankedQuery(name, tuple(NAMES[rank - 1] for rank in ranks), NAMES, scores)


def test_metrics_by_hand() -> None:
    quality = measure_quality(TaskRanking("task", [ranked("first", 1), ranked("third", 3), ranked("last", 20)], {}))
    means = {name: estimate.mean for name, estimate in quality.metrics.items()}
    assert means["recall@1"] == pytest.approx(1 / 3)
    assert means["recall@5"] == pytest.approx(2 / 3)
    assert means["recall@10"] == pytest.approx(2 / 3)
    assert means["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 20) / 3)
    assert means["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 3)
    assert (quality.queries, quality.pool, quality.skipped) == (3, 20, {})


def test_recall_counts_the_share_of_several_positives() -> None:
    quality = measure_quality(TaskRanking("task", [ranked("two", 1, 7)], {}))
    assert quality.metrics["recall@1"].mean == 0.5
    assert quality.metrics["recall@10"].mean == 1.0


def test_intervals_hold_the_mean_and_shrink_with_more_queries() -> None:
    few = [ranked(f"q{index}", 1 + index % 2) for index in range(20)]
    many = [ranked(f"q{index}", 1 + index % 2) for index in range(500)]
    narrow, wide = (measure_quality(TaskRanking("task", queries, {})).metrics["recall@1"] for queries in (many, few))
    for estimate in (narrow, wide):
        assert estimate.low < estimate.mean < estimate.high
    # The normal approximation: 1.96 standard errors on both sides.
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(500), rel=0.15)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_all_right_has_no_width() -> None:
    estimate = measure_quality(TaskRanking("task", [ranked(f"q{index}", 1) for index in range(5)], {})).metrics["recall@1"]
    assert (estimate.low, estimate.mean, estimate.high) == (1.0, 1.0, 1.0)


def test_comparison_of_two_rankings() -> None:
    before = TaskRanking("task", [ranked("same", 1), ranked("turned", 1)], {})
    turned = RankedQuery("turned", (NAMES[0],), NAMES, -before.queries[1].scores)
    comparison = compare_rankings(before, TaskRanking("task", [ranked("same", 1), turned], {}))
    assert comparison.top_1_agreement == 0.5
    assert comparison.rank_correlation == pytest.approx(0.0, abs=1e-9)  # 1 and -1
    (change,) = comparison.changed
    assert (change.query, change.before, change.after) == ("turned", NAMES[0], NAMES[-1])


def test_equal_scores_rank_as_in_trec_eval() -> None:
    """Of equal scores the larger id comes first, for the metrics and for the answer."""
    tied = RankedQuery("q", ("b",), ("b", "a"), np.array([0.5, 0.5], np.float32))
    assert tied.answer == "b"
    assert measure_quality(TaskRanking("task", [tied], {})).metrics["recall@1"].mean == 1.0


def test_no_rank_correlation_without_differences() -> None:
    flat = RankedQuery("q", ("a",), ("a", "b"), np.zeros(2, np.float32))
    ranking = TaskRanking("task", [flat], {})
    assert compare_rankings(ranking, ranking).rank_correlation is None


def test_rankings_without_a_common_query() -> None:
    with pytest.raises(InputError, match="No query of task 'task'"):
        compare_rankings(TaskRanking("task", [ranked("a", 1)], {}), TaskRanking("task", [ranked("b", 1)], {}))
