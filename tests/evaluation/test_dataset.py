"""Reading a dataset: both kinds of pool, and every way a file can be wrong."""

import json
from pathlib import Path

import pytest

from plume_export.errors import InputError
from plume_export.evaluation.dataset import read_dataset, select_tasks

CANDIDATES = [{"id": name, "candidate": {"text": f"answer {name}"}} for name in ("c1", "c2", "c3")]
QUERY = {"id": "q1", "query": {"text": "a question"}, "positive": "c1"}


def write(directory: Path, *lines: object) -> Path:
    file = directory / "set.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def test_a_query_ranks_the_pool_of_its_task(tmp_path: Path) -> None:
    (task,) = read_dataset(write(tmp_path, *CANDIDATES, "", QUERY))
    assert task.name == "set"
    assert task.queries["q1"].candidates == ("c1", "c2", "c3")
    assert task.queries["q1"].positives == ("c1",)
    assert task.queries["q1"].input.read().text == "a question"


def test_a_query_may_stand_before_its_candidates(tmp_path: Path) -> None:
    (task,) = read_dataset(write(tmp_path, QUERY, *CANDIDATES))
    assert task.queries["q1"].candidates == ("c1", "c2", "c3")


def test_a_row_of_mmeb_is_a_query_with_its_own_candidates(tmp_path: Path) -> None:
    """MMEB gives each query up to 1000 targets, of which the first is right; targets have text, image or both."""
    targets = [{"task": "N24News", "id": f"t{i}", "candidate": {"text": f"target {i}"}} for i in range(6)]
    row = {"task": "N24News", "id": 0, "query": {"text": "an instruction"}, "positive": "t3", "candidates": ["t3", "t0", "t5"]}
    (task,) = read_dataset(write(tmp_path, *targets, row))
    assert list(task.queries) == ["0"]
    assert task.queries["0"].candidates == ("t3", "t0", "t5")


def test_tasks_are_apart(tmp_path: Path) -> None:
    lines = [line | {"task": task} for task in ("a", "b") for line in (*CANDIDATES, QUERY)]
    tasks = read_dataset(write(tmp_path, *lines))
    assert [task.name for task in tasks] == ["a", "b"]
    assert [task.name for task in select_tasks(tasks, ["b"], None)] == ["b"]
    with pytest.raises(InputError, match=r"no task 'c'.*\n.*task a or b"):
        select_tasks(tasks, ["c"], None)


def test_a_limit_leaves_the_pool_whole(tmp_path: Path) -> None:
    tasks = read_dataset(write(tmp_path, *CANDIDATES, QUERY, QUERY | {"id": "q2"}))
    (limited,) = select_tasks(tasks, [], 1)
    assert list(limited.queries) == ["q1"]
    assert limited.queries["q1"].candidates == ("c1", "c2", "c3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 4"),
        ({"id": "x", "candidate": {"txt": "a"}}, "unknown key 'txt'"),
        ({"id": "x", "query": {"text": " "}, "positive": "c1"}, "The input is empty"),
        ('["a list"]', "line 4"),
        ({"id": "x", "colour": "red"}, "colour"),
        ({"id": "x"}, "neither query nor candidate"),
        ({"id": "x", "query": {"text": "a"}, "candidate": {"text": "b"}}, "both query and candidate"),
        ({"id": "x", "query": {"text": "a"}}, "query 'x' has no positive"),
        ({"id": "x", "query": {"text": "a"}, "positive": []}, "query 'x' has no positive"),
        ({"id": "x", "query": {"text": "a"}, "positive": "c9"}, "the positive 'c9' of query 'x' is not among the candidates"),
        (
            {"id": "x", "query": {"text": "a"}, "positive": "c1", "candidates": ["c2", "c3"]},
            "the positive 'c1' of query 'x' is not among its own candidates",
        ),
        (
            {"id": "x", "query": {"text": "a"}, "positive": "c1", "candidates": ["c1", "c8"]},
            "lists 'c8', which is not a candidate",
        ),
        ({"id": "x", "query": {"text": "a"}, "positive": "c1", "candidates": ["c1", "c1"]}, "lists the candidate 'c1' twice"),
        ({"id": "c1", "candidate": {"text": "again"}}, "the candidate id 'c1' is repeated"),
        ({"id": "c4", "candidate": {"text": "a"}, "positive": "c1"}, "a candidate cannot have positive"),
        ('{"id": "x", "query": {"text": "a"}, "positive": "c2", "positive": "c1"}', "The key 'positive' is repeated"),
        ('{"id": "x", "id": "y", "query": {"text": "a"}, "positive": "c1"}', "The key 'id' is repeated"),
        ('{"id": "x", "query": {"text": "a", "text": "b"}, "positive": "c1"}', "The key 'text' is repeated"),
        ('{"id": "c4", "candidate": {"text": ' + '{"a":' * 100_000, "line 4"),
        ('{"id": "c4", "candidate": {"text": ' + "1" * 5000 + "}}", "line 4"),
        ({"id": "x", "task": "", "query": {"text": "a"}, "positive": "c1"}, "the task name is empty"),
        ({"id": 1.0, "candidate": {"text": "a"}}, "got `float`"),
        ({"id": True, "candidate": {"text": "a"}}, "got `bool`"),
        ({"id": None, "candidate": {"text": "a"}}, "got `null`"),
        ("\ufeff" + json.dumps(QUERY), "line 4"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: object, message: str) -> None:
    file = write(tmp_path, *CANDIDATES, line)
    with pytest.raises(InputError) as caught:
        read_dataset(file)
    assert f"{file} line 4" in str(caught.value)
    assert message in str(caught.value)
    assert "fix:" in str(caught.value)


def test_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    file = write(tmp_path, *CANDIDATES)
    line = QUERY | {"query": {"text": "one\u2028two\u0085three"}}
    file.write_text(file.read_text() + json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    (task,) = read_dataset(file)
    assert task.queries["q1"].input.read().text == "one\u2028two\u0085three"


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    candidate = {"id": 7, "candidate": {"text": "a"}}
    (task,) = read_dataset(write(tmp_path, candidate, {"id": 7, "query": {"text": "b"}, "positive": 7, "candidates": [7]}))
    assert task.queries["7"].positives == ("7",)


@pytest.mark.parametrize("number", [2**53 + 1, 2**64 + 1, 10**40, -7])
def test_large_numbers_are_ids_to_the_last_digit(tmp_path: Path, number: int) -> None:
    candidates = [{"id": number + more, "candidate": {"text": "a"}} for more in range(2)]
    (task,) = read_dataset(write(tmp_path, *candidates, {"id": number, "query": {"text": "b"}, "positive": number + 1}))
    assert list(task.candidates) == [str(number), str(number + 1)]
    assert task.queries[str(number)].positives == (str(number + 1),)


def test_a_number_and_the_same_as_text_are_one_id(tmp_path: Path) -> None:
    number, text = ({"id": name, "candidate": {"text": "a"}} for name in (1, "1"))
    with pytest.raises(InputError, match="line 2: the candidate id '1' is repeated"):
        read_dataset(write(tmp_path, number, text, QUERY))
    query = QUERY | {"positive": "1"}
    with pytest.raises(InputError, match="lists the candidate '1' twice"):
        read_dataset(write(tmp_path, number, query | {"candidates": [1, "1"]}))
    (task,) = read_dataset(write(tmp_path, number, query | {"candidates": [1]}))
    assert task.queries["q1"].candidates == ("1",)


def test_a_positive_that_is_named_twice_is_one(tmp_path: Path) -> None:
    (task,) = read_dataset(write(tmp_path, *CANDIDATES, QUERY | {"positive": ["c2", "c1", "c2"]}))
    assert task.queries["q1"].positives == ("c2", "c1")


def test_byte_order_mark_blank_lines_and_line_ends_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    lines = ["", *map(json.dumps, CANDIDATES), "  ", "", json.dumps(QUERY)]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    (task,) = read_dataset(file)
    assert list(task.candidates) == ["c1", "c2", "c3"]
    assert task.queries["q1"].input.place == f"{file} line 7, query q1"
    assert task.queries["q1"].candidates == ("c1", "c2", "c3")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps(QUERY | {"query": {"text": "caf\xe9"}}, ensure_ascii=False), encoding=encoding)
    with pytest.raises(InputError, match=r"cannot be read|line 1"):
        read_dataset(file)


def test_a_large_pool_is_shared(tmp_path: Path) -> None:
    candidates = [{"id": f"c{i}", "candidate": {"text": "a"}} for i in range(50)]
    (task,) = read_dataset(write(tmp_path, *candidates, *(QUERY | {"id": f"q{i}"} for i in range(3))))
    assert len({id(query.candidates) for query in task.queries.values()}) == 1


def test_a_query_id_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 5: the query id 'q1' is repeated"):
        read_dataset(write(tmp_path, *CANDIDATES, QUERY, QUERY))


def test_no_queries_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no queries"):
        read_dataset(write(tmp_path, *CANDIDATES))
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset(tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_a_path_that_the_system_refuses(name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset(Path(name))
