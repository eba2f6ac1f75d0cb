"""Retrieval metrics of a ranking, computed by trec_eval, with bootstrap confidence intervals."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from ..confidence import bootstrap_interval
from ..errors import MissingExtraError
from ..stages import FloatArray
from .ranking import RankedQuery, TaskRanking

# Our metric name -> trec_eval's. With several positives, recall is the share of positives among the first k.
MEASURES = {
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "recall@10": "recall_10",
    "mrr": "recip_rank",
    "ndcg@10": "ndcg_cut_10",
}
# Number of queries passed to trec_eval at a time. It takes scores as dictionaries, which need much memory.
_CHUNK = 256


class Estimate(msgspec.Struct, frozen=True):
    """A mean over queries and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class TaskQuality(msgspec.Struct, frozen=True):
    """Retrieval metrics of one task. `pool` is the mean number of candidates per query.

    `skipped` maps "candidate ID" or "query ID" to the reason why it was skipped.
    """

    task: str
    queries: int
    pool: float
    skipped: dict[str, str]
    metrics: dict[str, Estimate]


def measure_quality(ranking: TaskRanking) -> TaskQuality:
    """Return the metrics of one task. Raises MissingExtraError without the extra `evaluate`."""
    check_evaluate_extra()
    by_query = measure_queries(ranking.queries)
    return TaskQuality(
        task=ranking.task,
        queries=len(ranking.queries),
        pool=float(np.mean([len(query.candidates) for query in ranking.queries])),
        skipped=ranking.skipped,
        metrics={name: _estimate(values) for name, values in by_query.items()},
    )


def measure_queries(queries: Sequence[RankedQuery]) -> dict[str, list[float]]:
    """Return every metric of every query, in the order of the queries."""
    by_query: list[dict[str, float]] = []
    for start in range(0, len(queries), _CHUNK):
        by_query += _measure(queries[start : start + _CHUNK])
    return {name: [values[measure] for values in by_query] for name, measure in MEASURES.items()}


def estimate_changes(before: Sequence[RankedQuery], after: Sequence[RankedQuery]) -> dict[str, Estimate]:
    """Return, by metric, the mean change over the same queries, with a paired bootstrap interval."""
    values = zip(measure_queries(before).items(), measure_queries(after).values(), strict=True)
    return {name: _estimate_change(one, two) for (name, one), two in values}


def _measure(queries: Sequence[RankedQuery]) -> list[dict[str, float]]:
    """Return trec_eval's measures of every query.

    trec_eval gets generated ids, because its C strings end at a NUL in a user's id. The generated ids sort like the user's,
    because trec_eval breaks ties between equal scores by id.
    """
    import pytrec_eval

    relevant: dict[str, dict[str, int]] = {}
    scores: dict[str, dict[str, float]] = {}
    pool: tuple[str, ...] | None = None
    ids: dict[str, str] = {}
    for number, query in enumerate(queries):
        if query.candidates is not pool:  # most queries share one pool
            pool = query.candidates
            ids = {name: f"{rank:012d}" for rank, name in enumerate(sorted(pool))}
        relevant[str(number)] = {ids[name]: 1 for name in query.positives}
        values = zip(pool, query.scores.astype(float).tolist(), strict=True)
        scores[str(number)] = {ids[name]: score for name, score in values}
    measured = pytrec_eval.RelevanceEvaluator(relevant, set(MEASURES.values())).evaluate(scores)
    return [measured[str(number)] for number in range(len(queries))]


def check_evaluate_extra() -> None:
    """Raise MissingExtraError, before any long work, if the metrics cannot be computed."""
    for module in ("pytrec_eval", "scipy"):
        try:
            __import__(module)
        except ImportError:
            raise MissingExtraError(module, "evaluate") from None


def _estimate(values: Sequence[float]) -> Estimate:
    return Estimate(float(np.mean(values)), *bootstrap_interval([values], np.mean))


def _estimate_change(before: Sequence[float], after: Sequence[float]) -> Estimate:
    return Estimate(
        float(_mean_change(np.asarray(after), np.asarray(before))), *bootstrap_interval([after, before], _mean_change)
    )


def _mean_change(after: FloatArray, before: FloatArray, axis: int = -1) -> Any:
    return np.mean(after, axis=axis) - np.mean(before, axis=axis)
