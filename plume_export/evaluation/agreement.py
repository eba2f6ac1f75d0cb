"""Agreement of two bundles' rankings."""

from collections.abc import Sequence

import msgspec
import numpy as np

from ..errors import InputError
from .metrics import Estimate, estimate_changes
from .ranking import RankedQuery, TaskRanking


class ChangedAnswer(msgspec.Struct, frozen=True):
    """A query whose top candidate differs between the two bundles."""

    query: str
    positives: tuple[str, ...]
    before: str
    after: str


class TaskComparison(msgspec.Struct, frozen=True):
    """Agreement of two bundles on one task, measured over the queries that rank the same candidates with both bundles.

    `rank_correlation` is Spearman's correlation of a query's scores, averaged over the queries. It is None if every query has
    one candidate or equal scores. `changes` are the mean differences of the metrics over these queries, after minus before.
    """

    task: str
    queries: int
    top_1_agreement: float
    rank_correlation: float | None
    changes: dict[str, Estimate]
    changed: list[ChangedAnswer]


def compare_rankings(before: TaskRanking, after: TaskRanking) -> TaskComparison:
    """Compare two rankings of one task. Raises InputError if no query has the same candidates in both."""
    others = {(query.id, query.candidates): query for query in after.queries}
    keys = [(query.id, query.candidates) for query in before.queries]
    pairs = [(query, others[key]) for key, query in zip(keys, before.queries, strict=True) if key in others]
    if not pairs:
        raise InputError(
            f"No query of task {before.task!r} was ranked by both bundles.", fix="compare bundles of the same modalities"
        )
    changed = [
        ChangedAnswer(one.id, one.positives, one.answer, other.answer) for one, other in pairs if one.answer != other.answer
    ]
    return TaskComparison(
        task=before.task,
        queries=len(pairs),
        top_1_agreement=1 - len(changed) / len(pairs),
        rank_correlation=_mean_rank_correlation(pairs),
        changes=estimate_changes([one for one, _ in pairs], [other for _, other in pairs]),
        changed=changed,
    )


def _mean_rank_correlation(pairs: Sequence[tuple[RankedQuery, RankedQuery]]) -> float | None:
    from scipy.stats import spearmanr

    correlations = [
        spearmanr(one.scores, other.scores).statistic
        for one, other in pairs
        if np.ptp(one.scores) > 0 and np.ptp(other.scores) > 0
    ]
    return float(np.mean(correlations)) if correlations else None
