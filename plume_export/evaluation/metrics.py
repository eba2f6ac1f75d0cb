"""Retrieval metrics of a ranking, by trec_eval, with bootstrap confidence intervals, by SciPy."""

from collections.abc import Sequence

import msgspec
import numpy as np

from ..errors import MissingExtraError
from .ranking import RankedQuery, TaskRanking

# Our name -> trec_eval's. With several positives, recall is the share of them among the first k.
MEASURES = {
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "recall@10": "recall_10",
    "mrr": "recip_rank",
    "ndcg@10": "ndcg_cut_10",
}
CONFIDENCE = 0.95
_RESAMPLES = 2000
# Queries handed to trec_eval at a time: it takes scores as dictionaries.
_CHUNK = 256


class Estimate(msgspec.Struct, frozen=True):
    """A mean over queries and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class TaskQuality(msgspec.Struct, frozen=True):
    """How well one task's queries find their answers. `pool` is the mean number of candidates of a query.

    `skipped` says why a candidate or query was left out, by "candidate ID" or "query ID".
    """

    task: str
    queries: int
    pool: float
    skipped: dict[str, str]
    metrics: dict[str, Estimate]


def measure_quality(ranking: TaskRanking) -> TaskQuality:
    """Return the metrics of one task. Raises MissingExtraError without the extra `evaluate`."""
    check_evaluate_extra()
    by_query: list[dict[str, float]] = []
    for start in range(0, len(ranking.queries), _CHUNK):
        by_query += _measure(ranking.queries[start : start + _CHUNK])
    return TaskQuality(
        task=ranking.task,
        queries=len(ranking.queries),
        pool=float(np.mean([len(query.candidates) for query in ranking.queries])),
        skipped=ranking.skipped,
        metrics={name: _estimate([values[measure] for values in by_query]) for name, measure in MEASURES.items()},
    )


def _measure(queries: Sequence[RankedQuery]) -> list[dict[str, float]]:
    """Return trec_eval's measures of every query."""
    import pytrec_eval

    relevant = {query.id: dict.fromkeys(query.positives, 1) for query in queries}
    scores = {query.id: dict(zip(query.candidates, query.scores.astype(float).tolist(), strict=True)) for query in queries}
    return list(pytrec_eval.RelevanceEvaluator(relevant, set(MEASURES.values())).evaluate(scores).values())


def check_evaluate_extra() -> None:
    """Raise MissingExtraError, before any long work, unless the metrics can be computed."""
    for module in ("pytrec_eval", "scipy"):
        try:
            __import__(module)
        except ImportError:
            raise MissingExtraError(module, "evaluate") from None


def _estimate(values: list[float]) -> Estimate:
    from scipy.stats import bootstrap

    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, mean, mean)
    interval = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, batch=100, confidence_level=CONFIDENCE, method="percentile", rng=0
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))
