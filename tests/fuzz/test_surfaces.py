"""A short run over every surface. `python -m tests.fuzz` is the long one."""

import pytest

from .supervisor import Tally, fuzz, shares
from .surfaces import NAMES, load_surface

pytestmark = pytest.mark.slow

CASES, SEED = 1000, 0


@pytest.fixture(scope="module")
def tallies() -> dict[str, Tally]:
    return fuzz(shares(CASES, {name: load_surface(name).weight for name in NAMES}), seed=SEED, workers=2)


@pytest.mark.parametrize("name", NAMES)
def test_readers_return_or_raise_a_user_error(name: str, tallies: dict[str, Tally]) -> None:
    findings = tallies[name].findings
    assert not findings, "\n\n".join(map(str, findings[:3]))


@pytest.mark.parametrize("name", NAMES)
def test_many_cases_are_accepted(name: str, tallies: dict[str, Tally]) -> None:
    """Else what lies behind the first check is never reached."""
    assert tallies[name].accepted > 0.1 * tallies[name].cases
