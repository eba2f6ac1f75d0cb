"""A report as one HTML page that needs nothing beside it."""

import html

from ...page import filled_page
from .plots import latency_plot, roofline_plot, sweep_plot, throughput_plot
from .report import BenchReport
from .sentences import environment_lines, left_out_lines, sweep_lines, warning_lines
from .tables import (
    TextTable,
    filled,
    latency_table,
    process_table,
    rollout_table,
    roofline_table,
    stage_table,
    sweep_table,
    throughput_table,
)  # fmt: skip


def page_from_report(report: BenchReport) -> str:
    """Return the page: a section a question, each with its picture and its table. Raises MissingExtraError."""
    sections = [
        _section("How long an input takes", latency_plot(report), [latency_table(report), stage_table(report)]),
        _section("How many inputs a second", throughput_plot(report), [throughput_table(report)]),
        _section("Start and memory", "", [process_table(report)]),
        _section("What the rollout is spent on", "", [rollout_table(report)]),
        _section("How near to this machine's limits", roofline_plot(report), [roofline_table(report)]),
    ]
    for sweep in report.sweeps:
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in sweep_lines([sweep]))
        sections.append(_section(f"How cost grows with {sweep.over}", sweep_plot(sweep) + lines, [sweep_table(sweep)]))
    first = report.bundles[0]
    about = (*environment_lines(report), *warning_lines(report), *left_out_lines(report))
    return filled_page(
        __package__,
        title=html.escape(f"{first.name}: {first.backend} {first.precision}"),
        headlines=_headlines(report),
        about="".join(f"<li>{html.escape(line)}</li>" for line in about),
        sections="\n".join(sections),
    )


def _headlines(report: BenchReport) -> str:
    """A tile an input, against the baseline; the tables have the others."""
    tiles = [
        f"<div><b>{ratio.times_faster:.1f}x</b><span>{html.escape(ratio.input)}</span>"
        f"<i>as fast as {html.escape(ratio.contestant)}</i></div>"
        for ratio in report.ratios
        if ratio.contestant == report.baseline
    ]
    return "".join(tiles[:6])


def _section(title: str, picture: str, tables: list[TextTable]) -> str:
    shown = "".join(_table(filled(table)) for table in tables if table.rows)
    return f"<section><h2>{html.escape(title)}</h2>{picture}{shown}</section>"


def _table(table: TextTable) -> str:
    head = "".join(f"<th{_kind(index, table)}>{html.escape(column)}</th>" for index, column in enumerate(table.columns))
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(index, table)}>{html.escape(cell)}</td>" for index, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    note = f"<p>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f"<figure><figcaption>{html.escape(table.title)}</figcaption>"
        f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}</figure>"
    )


def _kind(index: int, table: TextTable) -> str:
    return ' class="word"' if index < table.labels else ""
