"""How long work reports its progress, whoever shows it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

# Takes how many more are done.
Advance: TypeAlias = Callable[[int], None]
# Opens a bar of so many things of a name; what it yields advances the bar.
OpenProgress: TypeAlias = Callable[[int, str], AbstractContextManager[Advance]]
# Says which step is done now; an indented line is a detail of the step before.
Report: TypeAlias = Callable[[str], None]
_INDENT = "  "


def detail_of(report: Report) -> Report:
    """Return what reports details of a step."""
    return lambda text: report(_INDENT + text)


def is_detail(text: str) -> bool:
    """Say whether a report is a detail of the step before."""
    return text.startswith(_INDENT)
