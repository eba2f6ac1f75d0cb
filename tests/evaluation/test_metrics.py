"""Metrics, intervals and agreement on rankings whose values are known."""

import math

import numpy as np
import pytest

from plume_export.errors import InputError
from plume_export.evaluation.agreement import compare_rankings
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


@pytest.mark.parametrize("names", [("a\0b", "a\0c", "a"), ("", " ", "  "), ("\u00e9", "e", "\U0001f600"), ("\n", "1 2", "\t")])
def test_ids_may_have_any_characters(names: tuple[str, ...]) -> None:
    """trec_eval takes ids for strings of C, and ends the program where two are equal up to a NUL."""
    scores = np.array([0.1, 0.3, 0.2], np.float32)
    queries = [RankedQuery(name, (name,), names, scores) for name in names]
    quality = measure_quality(TaskRanking("task", queries, {}))
    assert quality.metrics["recall@1"].mean == pytest.approx(1 / 3)
    assert quality.metrics["mrr"].mean == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)


@pytest.mark.parametrize("names", [NAMES, tuple(reversed(NAMES)), tuple(f"{index}" for index in range(20))])
def test_of_equal_scores_the_answer_is_the_one_that_is_measured(names: tuple[str, ...]) -> None:
    scores = np.zeros(len(names), np.float32)
    answer = RankedQuery("q", names[:1], names, scores).answer
    first = measure_quality(TaskRanking("task", [RankedQuery("q", (answer,), names, scores)], {}))
    assert first.metrics["recall@1"].mean == 1.0


def test_changes_are_of_the_same_queries() -> None:
    """Paired: a shift that all queries share has no spread, although the queries differ much."""
    spread = TaskRanking("task", [ranked(f"q{index}", 1 + index % 10) for index in range(40)], {})
    one_lower = TaskRanking("task", [ranked(f"q{index}", 2 + index % 10) for index in range(40)], {})
    change = compare_rankings(spread, one_lower).changes["recall@5"]
    assert change.mean == pytest.approx(-0.1)  # of ten, the one at rank 5
    assert change.low < -0.1 < change.high <= 0
    quality = measure_quality(spread).metrics["recall@5"]
    assert change.high - change.low < quality.high - quality.low
    same = compare_rankings(spread, spread).changes
    assert all((estimate.low, estimate.mean, estimate.high) == (0, 0, 0) for estimate in same.values())


def test_changes_leave_out_queries_that_only_one_has_ranked() -> None:
    before = TaskRanking("task", [ranked("a", 1), ranked("b", 1), ranked("c", 20)], {})
    after = TaskRanking("task", [ranked("c", 20), ranked("a", 2)], {})
    comparison = compare_rankings(before, after)
    assert comparison.queries == 2
    assert comparison.changes["recall@1"].mean == -0.5


def test_the_interval_is_scipys_of_the_differences() -> None:
    from scipy.stats import bootstrap

    before = [ranked(f"q{index}", 1 + index % 3) for index in range(60)]
    after = [ranked(f"q{index}", 1 + index % 4) for index in range(60)]
    change = compare_rankings(TaskRanking("t", before, {}), TaskRanking("t", after, {})).changes["recall@1"]
    differences = np.array([(index % 4 == 0) - (index % 3 == 0) for index in range(60)], float)
    expected = bootstrap((differences,), np.mean, n_resamples=2000, method="percentile", rng=1).confidence_interval
    assert change.mean == pytest.approx(differences.mean())
    assert (change.low, change.high) == pytest.approx((expected.low, expected.high), abs=0.03)
