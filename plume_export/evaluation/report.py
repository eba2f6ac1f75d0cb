"""What `evaluate` finds, for a person and for a script."""

import msgspec
from rich.table import Table

from .compare import TaskComparison
from .metrics import Estimate, TaskQuality


class BundleQuality(msgspec.Struct, frozen=True):
    """One bundle on a dataset."""

    bundle: str
    sha256: str
    backend: str
    precision: str
    tasks: list[TaskQuality]


class EvaluationReport(msgspec.Struct, frozen=True):
    """A bundle's quality; with a second bundle, its quality too and how far the two agree (`comparison`)."""

    evaluated: BundleQuality
    compared: BundleQuality | None = None
    comparison: list[TaskComparison] = []


def quality_table(quality: BundleQuality) -> Table:
    """One row a task: mean and interval of every metric."""
    title = f"{quality.bundle}: {quality.backend} {quality.precision}, sha256 {quality.sha256[:12]}"
    table = Table(title=title, caption="means over queries, 95 % bootstrap intervals", title_justify="left")
    table.add_column("task")
    for column in ("queries", "pool", *quality.tasks[0].metrics):
        table.add_column(column, justify="right")
    for task in quality.tasks:
        queries = f"{task.queries}" if not task.skipped else f"{task.queries} ({len(task.skipped)} inputs skipped)"
        table.add_row(task.task, queries, f"{task.pool:.0f}", *(_cell(estimate) for estimate in task.metrics.values()))
    return table


def comparison_table(report: EvaluationReport) -> Table:
    """One row a task: agreement with the other bundle, and the change of Recall@1."""
    assert report.compared is not None
    table = Table(title=f"against {report.compared.bundle}", title_justify="left")
    table.add_column("task")
    for column in ("queries", "top-1 agreement", "rank correlation", "recall@1 change"):
        table.add_column(column, justify="right")
    before = {task.task: task for task in report.compared.tasks}
    after = {task.task: task for task in report.evaluated.tasks}
    for task in report.comparison:
        change = after[task.task].metrics["recall@1"].mean - before[task.task].metrics["recall@1"].mean
        table.add_row(
            task.task, f"{task.queries}", f"{task.top_1_agreement:.4f}", _correlation(task.rank_correlation), f"{change:+.4f}"
        )
    return table


def changed_lines(report: EvaluationReport) -> list[str]:
    """One line a query whose first answer is another one."""
    return [
        f"{task.task} {change.query}: {change.before} -> {change.after} (right: {', '.join(change.positives)})"
        for task in report.comparison
        for change in task.changed
    ]


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _cell(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f}\n{estimate.low:.3f}-{estimate.high:.3f}"
