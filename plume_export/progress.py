"""Types for reporting progress, and a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

# Receives the number of newly finished units.
Advance: TypeAlias = Callable[[int], None]
# Opens a progress bar with a total and a unit. Yields the function that advances it.
OpenProgress: TypeAlias = Callable[[int, str], AbstractContextManager[Advance]]
# Receives the current step. An indented line is a detail of the previous step.
Report: TypeAlias = Callable[[str], None]
_INDENT = "  "


def detail_of(report: Report) -> Report:
    """Return a function that reports details of a step."""
    return lambda text: report(_INDENT + text)


def is_detail(text: str) -> bool:
    """Return True if a report is a detail of the previous step."""
    return text.startswith(_INDENT)


@contextmanager
def progress_bar(total: int | None, unit: str, *, is_shown: bool = True) -> Iterator[Advance]:
    """Show a progress bar on stderr, with the rate and the time left; yield the function that advances it.

    If `total` is None, the number of units is unknown.
    """
    if not is_shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    period = 3600  # a batch of photographs can take minutes on a CPU
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=period) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda count: bar.advance(task, count)
