"""The command `evaluate`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from ..evaluation.dataset import read_dataset, select_tasks
from ..evaluation.evaluate import EvaluationOptions
from ..evaluation.evaluate import evaluate as evaluate_bundle
from ..evaluation.quality_report import (
    EvaluationReport,
    changed_lines,
    checkpoint_line,
    comparison_table,
    quality_table,
    skipped_lines,
)
from ..inputs import NoticeTally
from ..printable import printable
from .console import print_notices, print_table, progress
from .messages import warn
from .shared_options import media_options, run_options, verify_option
from .switches import Answer, command


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--dataset", type=click.Path(path_type=Path), required=True, help="JSON lines with queries and candidates.")
@click.option(
    "--compare", type=click.Path(path_type=Path), help="Compare with a second bundle: report agreement and changed results."
)
@click.option("--task", "names", multiple=True, help="Only this task; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="Use only the first N queries of each task, but all its candidates.")
@click.option(
    "--rounded",
    is_flag=True,
    help="Run BUNDLE in ONNX's reference evaluator, which rounds to 16 bit after every operator. Slow; shows "
    "the exact 16-bit rounding error.",
)
@run_options
@media_options
@verify_option
def evaluate(
    bundle: Path,
    dataset: Path,
    compare: Path | None,
    names: tuple[str, ...],
    limit: int | None,
    rounded: bool,
    **options: Any,
) -> Answer:
    """Measure retrieval on a dataset. Recall, MRR and nDCG come with 95 % bootstrap intervals."""
    if rounded and options["threads"] is not None:
        raise click.UsageError("--threads has no effect with --rounded: ONNX's reference evaluator runs in numpy")
    settings = EvaluationOptions(is_rounded=rounded, **options)
    tasks = select_tasks(read_dataset(dataset), names, limit)
    tally = NoticeTally()
    report = evaluate_bundle(bundle, tasks, settings, compare=compare, progress=progress, notify=tally.add)
    print_notices(tally)
    for line in skipped_lines(report):
        warn(line)
    different = checkpoint_line(report)
    if different is not None:
        warn(printable(different))
    return Answer(report, partial(_print_evaluation, report))


def _print_evaluation(report: EvaluationReport) -> None:
    for quality in (report.evaluated, report.compared):
        if quality is not None:
            print_table(quality_table(quality))
    if report.compared is not None:
        print_table(comparison_table(report))
        for line in changed_lines(report):
            click.echo(line)


COMMANDS = (evaluate,)
