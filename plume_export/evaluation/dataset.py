"""A retrieval dataset: JSON lines with queries, and the candidates that they rank.

    {"task": "t", "id": "c1", "candidate": {"image": "beach.png"}}
    {"task": "t", "id": "q1", "query": {"text": "dogs on a beach"}, "positive": "c1"}
    {"task": "t", "id": "q2", "query": {"text": "a red car"}, "positive": ["c7", "c9"], "candidates": ["c1", "c7", "c9"]}

Queries and candidates are inputs as for `embed --input`, with paths relative to the file. A query ranks its own `candidates`,
or all candidates of its task. `task` is optional; the default is the file's name. A row of MMEB is one query with `candidates`.
An id is a string or an integer; 1 and "1" are the same id.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InputError
from ..inputs import Item, item_from_json
from ..inputs.item import object_from_pairs


@dataclass(frozen=True)
class DatasetInput:
    """The input of a query or candidate, with media not read yet. Equal contents compare equal, so each is embedded once.

    `place` is its position: the file, the line and the id.
    """

    content: str  # one JSON object, as for `embed --input`
    base_dir: Path
    place: str = field(compare=False)

    def read(self) -> Item:
        """Return the item. Raises InputError for unknown keys and for an empty input."""
        return item_from_json(self.content, self.base_dir)


@dataclass(frozen=True)
class Query:
    """A query with the ids of its positives and of its candidates. Queries with the same candidates share the tuple."""

    id: str
    input: DatasetInput
    positives: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass
class RetrievalTask:
    """The queries of one task and its candidates, by id."""

    name: str
    queries: dict[str, Query] = field(default_factory=dict)
    candidates: dict[str, DatasetInput] = field(default_factory=dict)


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    id: str | int
    task: str | None = None
    query: dict[str, Any] | None = None
    candidate: dict[str, Any] | None = None
    positive: str | int | list[str | int] | None = None
    candidates: list[str | int] | None = None


def read_dataset(path: Path) -> list[RetrievalTask]:
    """Read and check a dataset. Media are read later, when they are embedded.

    Raises InputError for a file without queries. Raises InputError with the line number for a line that is not exactly one of
    query and candidate, a repeated key or id, a query without a positive, and an unknown positive or candidate.
    """
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:  # a NUL in the path, or bytes that are not UTF-8
        raise InputError(f"The dataset {path} cannot be read: {error}.", fix="pass a UTF-8 JSON lines file") from None
    lines = [(number, _parsed(path, number, text)) for number, text in enumerate(texts, start=1) if text.strip()]
    tasks: dict[str, RetrievalTask] = {}
    for number, line in lines:
        if line.candidate is not None:
            task = tasks.setdefault(line.task or path.stem, RetrievalTask(line.task or path.stem))
            _check_new(path, number, "candidate", str(line.id), task.candidates)
            task.candidates[str(line.id)] = _input(path, number, f"candidate {line.id}", line.candidate)
    pools = {name: tuple(task.candidates) for name, task in tasks.items()}
    for number, line in lines:
        if line.query is not None:
            task = tasks.setdefault(line.task or path.stem, RetrievalTask(line.task or path.stem))
            _check_new(path, number, "query", str(line.id), task.queries)
            task.queries[str(line.id)] = _query(path, number, line, task, pools.get(task.name, ()))
    tasks = {name: task for name, task in tasks.items() if task.queries}
    if not tasks:
        raise InputError(f"The dataset {path} has no queries.", fix='add lines with "query" and "positive"')
    return list(tasks.values())


def select_tasks(tasks: Sequence[RetrievalTask], names: Sequence[str], limit: int | None) -> list[RetrievalTask]:
    """Return the named tasks (all if `names` is empty) with their first `limit` queries and all their candidates.

    Raises InputError for a name that the dataset does not have.
    """
    known = [task.name for task in tasks]
    for name in names:
        if name not in known:
            raise InputError(f"The dataset has no task {name!r}.", fix=f"pass --task {' or '.join(known)}")
    chosen = [task for task in tasks if not names or task.name in names]
    return [RetrievalTask(task.name, dict(list(task.queries.items())[:limit]), task.candidates) for task in chosen]


def _parsed(path: Path, number: int, text: str) -> _Line:
    try:
        line = msgspec.json.decode(text, type=_Line)
        json.loads(text, object_pairs_hook=object_from_pairs)  # for a repeated key, msgspec would take the last value
    except InputError as error:
        error.add_place(f"{path} line {number}")
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _bad_line(path, number, f"{error}", "write one object per line, with id and query or candidate") from None
    if line.task == "":
        raise _bad_line(path, number, "the task name is empty", "omit task, or give it a name")
    if (line.query is None) == (line.candidate is None):
        found = "neither query nor candidate" if line.query is None else "both query and candidate"
        raise _bad_line(path, number, f"it has {found}", "give each line exactly one of them")
    if line.candidate is not None and (line.positive is not None or line.candidates is not None):
        raise _bad_line(path, number, "a candidate cannot have positive or candidates", "put them on the line of the query")
    return line


def _query(path: Path, number: int, line: _Line, task: RetrievalTask, shared_pool: tuple[str, ...]) -> Query:
    positives = line.positive if isinstance(line.positive, list) else [] if line.positive is None else [line.positive]
    if not positives:
        raise _bad_line(path, number, f"query {line.id!r} has no positive", 'name its positive: "positive": "ID"')
    pool = shared_pool if line.candidates is None else _own_pool(path, number, line, task)
    known: Collection[str] = task.candidates if line.candidates is None else set(pool)
    for name in map(str, positives):
        if name not in known:
            where = f"the candidates of task {task.name!r}" if line.candidates is None else "its own candidates"
            raise _bad_line(path, number, f"the positive {name!r} of query {line.id!r} is not among {where}", "add it there")
    assert line.query is not None
    return Query(
        str(line.id), _input(path, number, f"query {line.id}", line.query), tuple(dict.fromkeys(map(str, positives))), pool
    )


def _own_pool(path: Path, number: int, line: _Line, task: RetrievalTask) -> tuple[str, ...]:
    pool: dict[str, None] = {}
    for name in map(str, line.candidates or ()):
        if name in pool:
            raise _bad_line(path, number, f"query {line.id!r} lists the candidate {name!r} twice", "list it once")
        if name not in task.candidates:
            fix = f'add {{"task": "{task.name}", "id": "{name}", "candidate": {{...}}}}'
            raise _bad_line(
                path, number, f"query {line.id!r} lists {name!r}, which is not a candidate of task {task.name!r}", fix
            )
        pool[name] = None
    return tuple(pool)


def _input(path: Path, number: int, name: str, content: dict[str, Any]) -> DatasetInput:
    place = f"{path} line {number}"
    try:
        checked = DatasetInput(json.dumps(content, sort_keys=True), path.parent, f"{place}, {name}")
        checked.read()
    except InputError as error:
        error.add_place(place)
        raise
    except RecursionError:
        raise _bad_line(path, number, "it is nested too deeply", "write the input as for embed --input") from None
    return checked


def _check_new(path: Path, number: int, kind: str, name: str, known: Collection[str]) -> None:
    if name in known:
        raise _bad_line(path, number, f"the {kind} id {name!r} is repeated", f"give every {kind} of a task its own id")


def _bad_line(path: Path, number: int, problem: str, fix: str) -> InputError:
    return InputError(f"{path} line {number}: {problem}.", fix=fix)
