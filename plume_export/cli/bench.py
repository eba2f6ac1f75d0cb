"""The command `bench`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from ..bench.bench_options import BenchOptions, batch_sizes_from_text
from ..bench.html_report import check_plotting
from ..bench.report import BenchReport
from ..bench.run import run_bench
from ..bench.text_report import environment_lines, left_out_lines, sweep_lines, tables_of, warning_lines
from ..bundle import check_writable
from ..whole_file import replacing
from .console import html_file, print_table
from .messages import report_step
from .shared_options import verify_option
from .switches import Answer, command


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against",
    multiple=True,
    metavar="pytorch|BUNDLE",
    help="PyTorch (or pytorch-fp32, pytorch-bf16) or another bundle; may be repeated.",
)
@click.option("--checkpoint", help="The checkpoint that the bundle was made from. Needed for --against pytorch.")
@click.option("--compile", "compiled", is_flag=True, help="Also measure PyTorch with torch.compile.")
@click.option("--inputs", type=click.Path(path_type=Path), help="JSON lines as for embed.  [default: generated inputs]")
@click.option("--batch", default="1,8", show_default=True, help="Batch sizes at which throughput is measured.")
@click.option("--runs", type=click.IntRange(min=1), default=10, show_default=True, help="Timed repetitions of each input.")
@click.option(
    "--cold-starts",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Cold starts (new processes) per candidate.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each candidate.  [default: one per core]")
@click.option("--sweep", is_flag=True, help="Also measure the bundle over a range of prompt lengths and image sizes.")
@click.option("--html", "page", type=click.Path(path_type=Path), callback=html_file, help="Write an HTML report with charts.")
@click.option("--revision", help="Branch, tag or commit of a hub id.  [default: main]")
@click.option("--offline", is_flag=True, help="Use only the local Hugging Face cache; do not download.")
@verify_option
def bench(bundle: Path, batch: str, page: Path | None, **options: Any) -> Answer:
    """Measure a bundle against PyTorch, other bundles and the hardware's limits.

    The bundle and everything given with --against are the candidates.
    """
    batch_sizes = batch_sizes_from_text(batch)
    if page is not None:
        check_writable(page)
        check_plotting()
    report = run_bench(BenchOptions(bundle=bundle, batch_sizes=batch_sizes, **options), report_step)
    report_step("done")
    if page is not None:
        from ..bench.html_report import page_from_report

        with replacing(page) as file:
            file.write(page_from_report(report).encode("utf-8", "replace"))
    return Answer(report, partial(_print_bench, report, page))


def _print_bench(report: BenchReport, page: Path | None) -> None:
    """Print a measurement: the environment, the tables, the sweeps, and what was left out."""
    from rich.table import Table

    for line in environment_lines(report):
        click.echo(line)
    for text in tables_of(report):
        table = Table(title=text.title, title_justify="left", caption=text.note or None, caption_justify="left")
        for index, column in enumerate(text.columns):
            table.add_column(column, justify="left" if index < text.labels else "right")
        for row in text.rows:
            table.add_row(*row)
        print_table(table)
    for line in (*sweep_lines(report.sweeps), *left_out_lines(report), *warning_lines(report)):
        click.echo(line)
    if page is not None:
        click.echo(str(page))


COMMANDS = (bench,)
