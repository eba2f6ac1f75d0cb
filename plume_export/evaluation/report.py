"""What `evaluate` finds, for a person and for a script."""

import msgspec
from rich.table import Table

from ..inputs import MediaOptions
from ..printable import printable, printable_line
from .compare import TaskComparison
from .metrics import Estimate, TaskQuality

# As many lines, and right answers in one, are printed.
_LINES = 20
_NAMES = 3


class BundleQuality(msgspec.Struct, frozen=True):
    """One bundle on a dataset."""

    bundle: str
    sha256: str
    checkpoint: str
    backend: str
    precision: str
    tasks: list[TaskQuality]


class EvaluationReport(msgspec.Struct, frozen=True):
    """A bundle's quality; with a second bundle, its quality too and how far the two agree (`comparison`).

    `same_checkpoint`: whether both were made from the same tensors and config.json; None if a bundle lacks their hashes.
    `media`: how pictures and videos were read. `model_differences`: settings in which the models of the two bundles differ.
    """

    evaluated: BundleQuality
    compared: BundleQuality | None = None
    comparison: list[TaskComparison] = []
    same_checkpoint: bool | None = None
    media: MediaOptions = MediaOptions()
    model_differences: list[str] = []


def quality_table(quality: BundleQuality) -> Table:
    """One row per task: mean and interval of every metric."""
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
    """One row per task: agreement with the other bundle, and the change of Recall@1."""
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
    """One line a query whose first answer is another one, and how many more there are than the first few."""
    lines = [
        f"{task.task} {change.query}: {change.before} -> {change.after} (right: {_names(change.positives)})"
        for task in report.comparison
        for change in task.changed
    ]
    return _first(lines)


def skipped_lines(report: EvaluationReport) -> list[str]:
    """One line an input that was left out, by one bundle or both, and how many more there are than the first few."""
    lines: dict[str, None] = {}
    for quality in (report.evaluated, report.compared):
        for task in () if quality is None else quality.tasks:
            lines |= dict.fromkeys(f"{task.task}: skipped {name}: {reason}" for name, reason in task.skipped.items())
    return _first(list(lines))


def checkpoint_line(report: EvaluationReport) -> str | None:
    """Say that the bundles are of different models or checkpoints, or that this may be so; None if nothing tells so."""
    if report.compared is None:
        return None
    differences = ", ".join(report.model_differences)
    if report.same_checkpoint is not False and differences:
        return f"the bundles' models differ in {differences}: what changed is the model, not the precision alone"
    if report.same_checkpoint:
        return None
    names = f"{report.compared.checkpoint} and {report.evaluated.checkpoint}"
    if report.same_checkpoint is False:
        names += f", whose models differ in {differences}" if differences else ""
        return f"the bundles are of different checkpoints ({names}): what changed is the model, not the precision alone"
    if report.compared.checkpoint != report.evaluated.checkpoint:
        return (
            f"the bundles name different checkpoints ({names}): if they are, what changed is the model, not the precision alone"
        )
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
