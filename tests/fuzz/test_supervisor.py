"""Whatever a reader does wrong is found, named with its case, and the cases after it still run."""

from pathlib import Path

import pytest

from .supervisor import Finding, Limits, Tally, fuzz, shares
from .surface import Cases
from .surfaces import load_surface

CASES, SEED = 7, 14


@pytest.fixture(scope="module")
def tally() -> Tally:
    return fuzz({"bad-reader": CASES}, seed=SEED, workers=1, limits=Limits(hang_s=6, memory_bytes=400 << 20))["bad-reader"]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    cases = Cases(load_surface("bad-reader"), tmp_path_factory.mktemp("bad-reader"), SEED)
    return [cases[number]["case"][0] for number in range(CASES)]


@pytest.mark.slow
def test_every_failure_is_found(tally: Tally, contents: list[int]) -> None:
    assert set(contents) == set(range(6))
    kinds = {2: "exception", 3: "crash", 4: "memory", 5: "hang"}
    expected = [(number, kinds[content]) for number, content in enumerate(contents) if content in kinds]
    assert [(finding.number, finding.kind) for finding in tally.findings] == expected


@pytest.mark.slow
def test_others_are_counted(tally: Tally, contents: list[int]) -> None:
    assert (tally.cases, tally.accepted, tally.refused) == (CASES, contents.count(0), contents.count(1))


def test_a_finding_tells_how_to_run_it_again() -> None:
    text = str(Finding("images", 5, 17, "exception", "Traceback ..."))
    assert "python -m tests.fuzz --surface images --seed 5 --case 17" in text


def test_shares_add_up() -> None:
    assert shares(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}


def test_a_case_does_not_depend_on_those_before(tmp_path: Path) -> None:
    surface = load_surface("recipes")
    cases, others = Cases(surface, tmp_path, 0), Cases(surface, tmp_path, 0)
    assert [cases[1], cases[2]] == [others[number] for number in (1, 2)] != [cases[3], cases[4]]
    assert others[1] == cases[1]
