"""What the commands print: results on stdout, progress and notes on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from ..parity.table import table_from_report, verdict
from ..search.search import SearchResult
from ..selftest import SelftestReport


def report_step(step: str) -> None:
    """Tell on stderr what is being done now."""
    click.echo(f"{time.strftime('%H:%M:%S')} {step}", err=True)


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar with the rate on stderr; yield the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda count: bar.advance(task, count)


def print_table(table: object) -> None:
    """Print a rich table as plain text that can be pasted anywhere."""
    from rich.console import Console

    Console(width=110, highlight=False).print(table)


def print_hits(result: SearchResult) -> None:
    """Print the ranked files of a search."""
    from rich.table import Table

    table = Table(title=f"{result.pictures} pictures in {result.folder}, {result.embedded} new", title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("file", overflow="fold")
    for rank, hit in enumerate(result.hits, start=1):
        table.add_row(str(rank), f"{hit.score:.4f}", str(hit.file.relative_to(result.folder)))
    print_table(table)


def print_selftest(report: SelftestReport) -> None:
    """Print a self-test as text that one can paste into a report."""
    print_table(table_from_report(report.parity, f"self-test of bundle {report.bundle}: {report.backend}"))
    click.echo(verdict(report.parity))
    click.echo(f"machine: {report.machine}, Python {report.python}")
    stages = ", ".join(f"{stage} {value:.1f} ms" for stage, value in report.milliseconds_per_input.items())
    click.echo(f"latency per input: {stages}")
    if report.peak_memory_mb is not None:
        click.echo(f"peak memory: {report.peak_memory_mb:.0f} MB")
