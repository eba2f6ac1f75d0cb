"""How long work reports its progress, whoever shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@contextmanager
def progress_bar(total: int | None, unit: str, *, is_shown: bool = True) -> Iterator[Advance]:
    """Show a bar with the rate and the time left on stderr; yield the function that advances it.

    None: nobody knows how many.
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
