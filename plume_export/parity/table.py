"""A parity report as a table of plain text."""

from rich.table import Table

from .compare import ParityReport


def table_from_report(report: ParityReport, title: str) -> Table:
    """Return one row per stage, in the order of the computation."""
    table = Table(title=title, title_justify="left")
    for column in ("stage", "max abs", "relative", "cosine", "within", "worst input"):
        table.add_column(column, justify="left" if column in ("stage", "worst input") else "right")
    for stage in report.stages:
        table.add_row(
            stage.stage,
            f"{stage.max_abs:.2e}",
            f"{stage.relative_error:.2e}",
            f"{stage.cosine:.7f}",
            "yes" if stage.is_within else "NO",
            stage.worst_input,
        )
    agrees = report.router_agreement >= report.router_agreement_floor
    table.add_row("router choices", "", "", f"{report.router_agreement:.1%} agree", "yes" if agrees else "NO", "")
    return table


def verdict(report: ParityReport) -> str:
    """Return one sentence: all stages are within tolerance, or the first one that is not."""
    bad = report.first_bad_stage
    if bad is None:
        return f"parity passed: every stage of {report.inputs} inputs is within the {report.precision} tolerance"
    return f"parity failed: the first stage outside the {report.precision} tolerance is {bad!r}"
