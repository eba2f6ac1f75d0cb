"""Embed a dataset and score every query's candidates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..embed_file import OnError, embed_sources
from ..errors import InputError
from ..inputs import Notify, Source
from ..progress import Advance
from ..runtime.embedder import Embedder
from ..stages import FloatArray
from .dataset import DatasetInput, RetrievalTask


@dataclass(frozen=True)
class RankedQuery:
    """One query's candidates with their cosines, in the dataset's order."""

    id: str
    positives: tuple[str, ...]
    candidates: tuple[str, ...]
    scores: FloatArray  # [candidates]

    @property
    def answer(self) -> str:
        """The candidate with the highest score. Ties go to the larger id, as in trec_eval."""
        best = self.scores.max()
        return max(name for name, score in zip(self.candidates, self.scores, strict=True) if score == best)


@dataclass(frozen=True)
class TaskRanking:
    """All ranked queries of one task. `skipped` maps "query ID" or "candidate ID" to the reason why it was skipped."""

    task: str
    queries: list[RankedQuery]
    skipped: dict[str, str]


def distinct_inputs(tasks: Sequence[RetrievalTask]) -> list[DatasetInput]:
    """Return every distinct input once, also if several tasks or queries use it."""
    inputs: dict[DatasetInput, None] = {}
    for task in tasks:
        inputs |= dict.fromkeys(query.input for query in task.queries.values())
        pools = {id(query.candidates): query.candidates for query in task.queries.values()}  # most queries share one pool
        ranked = {name for pool in pools.values() for name in pool}
        inputs |= dict.fromkeys(content for name, content in task.candidates.items() if name in ranked)
    return list(inputs)


def check_files(inputs: Sequence[DatasetInput]) -> None:
    """Raise InputError, with the dataset's line and id, for the first input whose image or video file is missing."""
    for content in inputs:
        item = content.read()
        videos = item.video if isinstance(item.video, tuple) else () if item.video is None else (item.video,)
        for file in (*item.images, *videos):
            if isinstance(file, str | os.PathLike) and not os.path.exists(file):
                raise InputError(
                    f"{content.place}: {os.fspath(file)} does not exist.",
                    fix="check the path, which is relative to the dataset; or use --on-error skip",
                )


def rank_tasks(
    embedder: Embedder,
    tasks: Sequence[RetrievalTask],
    *,
    batch_size: int | None,
    on_error: OnError,
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> list[TaskRanking]:
    """Embed every input and rank the candidates.

    With `on_error="skip"`, inputs that cannot be read are skipped. A skipped candidate is removed from all pools. A query is
    removed if it was skipped or if all its positives were. With "fail" such an input raises InputError. A task without any
    remaining query always raises InputError.
    """
    inputs = distinct_inputs(tasks)
    sources = [Source(content.place, content.read) for content in inputs]
    result = embed_sources(embedder, sources, batch_size=batch_size, on_error=on_error, advance=advance, notify=notify)
    rows = {content: row for row, content in enumerate(inputs)}
    reasons = {inputs[row]: reason for row, reason in result.skipped.items()}
    return [_rank(task, result.embeddings, rows, reasons) for task in tasks]


def _rank(
    task: RetrievalTask, embeddings: FloatArray, rows: dict[DatasetInput, int], reasons: dict[DatasetInput, str]
) -> TaskRanking:
    skipped = {f"candidate {name}": reasons[content] for name, content in task.candidates.items() if content in reasons}
    ranked = []
    pool: tuple[str, ...] | None = None
    kept: tuple[str, ...] = ()
    candidates = embeddings[:0]
    for query in task.queries.values():
        if query.candidates is not pool:
            pool = query.candidates
            kept = tuple(name for name in pool if task.candidates[name] not in reasons)
            candidates = embeddings[[rows[task.candidates[name]] for name in kept]]  # [candidates, hidden]
        positives = tuple(name for name in query.positives if task.candidates[name] not in reasons)
        if query.input in reasons or not positives:
            skipped[f"query {query.id}"] = reasons.get(query.input, "its positives were skipped")
            continue
        ranked.append(RankedQuery(query.id, positives, kept, candidates @ embeddings[rows[query.input]]))
    if not ranked:
        reason = next(iter(skipped.values())).splitlines()[0]
        raise InputError(
            f"Every query of task {task.name!r} was skipped: {reason}",
            fix="repair the inputs, or select other tasks with --task",
        )
    return TaskRanking(task.name, ranked, skipped)
