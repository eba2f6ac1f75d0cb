"""Datasets of an evaluation."""

import json
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.evaluation.dataset import read_dataset

from ..mutation import mutated, mutated_json
from ..surface import Files, Surface

_CASE = "case.jsonl"
_LINES = (
    {"task": "t", "id": "c1", "candidate": {"image": "beach.png"}},
    {"task": "t", "id": "c2", "candidate": {"text": "a red car"}},
    {"task": "t", "id": "q1", "query": {"text": "dogs on a beach"}, "positive": "c1"},
    {"task": "t", "id": "q2", "query": {"text": "a car"}, "positive": ["c2", "c1"], "candidates": ["c1", "c2"]},
)


@st.composite
def _lines(draw: DrawFn) -> Files:
    damaged = draw(st.integers(0, len(_LINES) - 1))
    lines = [json.dumps(line).encode() for line in _LINES]
    lines[damaged] = draw(mutated_json([_LINES[damaged]], ["c1", ["c1"], {"text": "a"}], is_raw=draw(st.booleans())))
    content = b"\n".join(lines)
    return {_CASE: draw(mutated([content])) if draw(st.integers(0, 7)) == 0 else content}


def _read(directory: Path) -> None:
    for task in read_dataset(directory / _CASE):
        for query in task.queries.values():
            assert set(query.positives) <= set(query.candidates) <= set(task.candidates)


SURFACE = Surface("datasets", 8, lambda _: None, lambda _: _lines(), _read)
