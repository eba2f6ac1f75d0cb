"""The result of `evaluate` as tables and as JSON."""

import msgspec
from rich.table import Table

from ..inputs import MediaOptions
from ..printable import printable, printable_line
from .agreement import TaskComparison
from .metrics import Estimate, TaskQuality

# Maximum number of lines printed, and of positives in one line.
_LINES = 20
_NAMES = 3


class BundleQuality(msgspec.Struct, frozen=True):
    """Quality of one bundle on a dataset."""

    bundle: str
    sha256: str
    checkpoint: str
    backend: str
    precision: str
    tasks: list[TaskQuality]


class EvaluationReport(msgspec.Struct, frozen=True):
    """A bundle's quality. With a second bundle, also its quality and the agreement of the two (`comparison`).

    `same_checkpoint` is True if both were made from the same tensors and config.json, and None if a bundle lacks their hashes.
    `media` are the options for reading images and videos. `model_differences` are settings in which the two models differ.
    """

    evaluated: BundleQuality
    compared: BundleQuality | None = None
    comparison: list[TaskComparison] = []
    same_checkpoint: bool | None = None
    media: MediaOptions = MediaOptions()
    model_differences: list[str] = []


def quality_table(quality: BundleQuality) -> Table:
    """Return one row per task: mean and interval of every metric."""
    title = f"{quality.bundle}: {quality.backend} {quality.precision}, sha256 {quality.sha256[:12]}"
    table = Table(title=title, caption="means over queries, 95 % bootstrap intervals", title_justify="left")
    table.add_column("task")
    for column in ("queries", "pool", *quality.tasks[0].metrics):
        table.add_column(column, justify="right")
    for task in quality.tasks:
        queries = f"{task.queries}" if not task.skipped else f"{task.queries} ({len(task.skipped)} inputs skipped)"
        table.add_row(
            printable(task.task), queries, f"{task.pool:.0f}", *(_cell(estimate) for estimate in task.metrics.values())
        )
    return table


def comparison_table(report: EvaluationReport) -> Table:
    """Return one row per task: agreement with the other bundle, and the change of Recall@1."""
    assert report.compared is not None
    table = Table(title=f"against {report.compared.bundle}", title_justify="left")
    table.caption = "change: 95 % paired bootstrap interval"
    table.add_column("task")
    for column in ("queries", "top-1 agreement", "rank correlation", "recall@1 change"):
        table.add_column(column, justify="right")
    for task in report.comparison:
        agreement, correlation = f"{task.top_1_agreement:.4f}", _correlation(task.rank_correlation)
        table.add_row(printable(task.task), f"{task.queries}", agreement, correlation, _change(task.changes["recall@1"]))
    return table


def changed_lines(report: EvaluationReport) -> list[str]:
    """Return one line per query whose top answer differs, up to a maximum, and the number of further queries."""
    lines = [
        f"{task.task} {change.query}: {change.before} -> {change.after} (correct: {_names(change.positives)})"
        for task in report.comparison
        for change in task.changed
    ]
    return _first(lines)


def skipped_lines(report: EvaluationReport) -> list[str]:
    """Return one line per input that either bundle skipped, up to a maximum, and the number of further inputs."""
    lines: dict[str, None] = {}
    for quality in (report.evaluated, report.compared):
        for task in () if quality is None else quality.tasks:
            lines |= dict.fromkeys(f"{task.task}: skipped {name}: {reason}" for name, reason in task.skipped.items())
    return _first(list(lines))


def checkpoint_line(report: EvaluationReport) -> str | None:
    """Return a warning if the bundles have, or may have, different models or checkpoints. Otherwise return None."""
    if report.compared is None:
        return None
    differences = ", ".join(report.model_differences)
    if report.same_checkpoint is not False and differences:
        return f"the bundles' models differ in {differences}: the changes are not due to precision alone"
    if report.same_checkpoint:
        return None
    names = f"{report.compared.checkpoint} and {report.evaluated.checkpoint}"
    if report.same_checkpoint is False:
        names += f", whose models differ in {differences}" if differences else ""
        return f"the bundles are of different checkpoints ({names}): the changes are not due to precision alone"
    if report.compared.checkpoint != report.evaluated.checkpoint:
        return f"the bundles name different checkpoints ({names}): if these differ, the changes are not due to precision alone"
    return None


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - _LINES
    return [*map(printable_line, lines[:_LINES]), *([f"and {more:,} more (--json lists all)"] if more > 0 else [])]


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def _change(estimate: Estimate) -> str:
    return f"{estimate.mean:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _cell(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f}\n{estimate.low:.3f}-{estimate.high:.3f}"
