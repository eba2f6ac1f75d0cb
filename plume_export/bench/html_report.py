"""A benchmark's results as one self-contained HTML page."""

import html
import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..html_page import filled_page
from .hardware_limits import MatmulKind
from .latency import OTHER, Latency
from .report import BenchReport
from .sweep import Sweep
from .text_report import (
    TextTable,
    environment_lines,
    filled,
    latency_table,
    left_out_lines,
    number,
    process_table,
    rollout_table,
    roofline_table,
    stage_table,
    sweep_lines,
    sweep_table,
    throughput_table,
    warning_lines,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def page_from_report(report: BenchReport) -> str:
    """Return the page: one section per question, each with a chart and a table. Raises MissingExtraError."""
    sections = [
        _section("Latency per input", latency_plot(report), [latency_table(report), stage_table(report)]),
        _section("Throughput", throughput_plot(report), [throughput_table(report)]),
        _section("Start and memory", "", [process_table(report)]),
        _section("Time within the rollout", "", [rollout_table(report)]),
        _section("Share of this machine's limits", roofline_plot(report), [roofline_table(report)]),
    ]
    for sweep in report.sweeps:
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in sweep_lines([sweep]))
        sections.append(_section(f"Cost by {sweep.over}", sweep_plot(sweep) + lines, [sweep_table(sweep)]))
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
    """Return tiles for the first inputs: how the bundle compares with the baseline. The tables have the other candidates."""
    tiles = [
        f"<div><b>{ratio.times_faster:.1f}x</b><span>{html.escape(ratio.input)}</span>"
        f"<i>as fast as {html.escape(ratio.candidate)}</i></div>"
        for ratio in report.ratios
        if ratio.candidate == report.baseline
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


# Placeholders that are replaced by the page's colours when the chart has become SVG text.
_TEXT, _LINE, _MARK = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {_TEXT: "var(--text)", _LINE: "var(--line)", _MARK: "var(--mark)"}
_STAGE_COLOURS = {"preprocess": "#8d99ae", "vision": "#2a9d8f", "prefill": "#4f7cac", "rollout": "#8e5fd0", OTHER: "#c9a227"}
_OTHERS = ("#7d838c", "#a9855f", "#3f8f6b", "#a05195", "#8a8a3a", "#5f7a8c")
# Maximum number of inputs in a chart. The table has all of them.
_MOST_INPUTS = 6
_WIDTH_INCHES = 9.6


def check_plotting() -> None:
    """Raise MissingExtraError without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib", "bench") from None


def latency_plot(report: BenchReport) -> str:
    """Return a chart with one group of bars per input: bundles by stage, PyTorch as a whole.

    Whiskers end at the 95th percentile.
    """
    inputs = [size.name for size in report.inputs[:_MOST_INPUTS]]
    ratios = {(ratio.input, ratio.candidate): ratio.times_faster for ratio in report.ratios}
    count = len(report.candidates)
    figure, rows = _figure(len(inputs), 0.55 + 0.3 * count)
    for axes, name in zip(rows, inputs, strict=True):
        series = [one for one in report.latency if one.input == name]
        most = max(one.ms.p95 for one in series)
        for position, one in enumerate(series):
            _bar(axes, position, one, report.candidates)
            faster = ratios.get((name, one.candidate))
            text = f" {number(one.ms.p50)} ms" + ("" if faster is None else f"  ({faster:.2f}x)")
            axes.text(max(one.ms.p95, one.ms.p50) + 0.008 * most, position, text, va="center", color=_TEXT)
        axes.set(yticks=range(count), yticklabels=[one.candidate for one in series], xlim=(0, 1.28 * most))
        axes.set_title(name, loc="left", color=_TEXT)
        axes.invert_yaxis()
        _plain_numbers(axes.xaxis)
    rows[-1].set_xlabel("milliseconds, median; the whisker ends at the 95th percentile")
    used = [stage for stage in _STAGE_COLOURS if any(stage in one.stages_ms for one in report.latency)]
    _legend(figure, [(stage, _STAGE_COLOURS[stage]) for stage in used])
    return _svg(figure, "latency")


def throughput_plot(report: BenchReport) -> str:
    """Return a chart of samples per second over batch sizes. PyTorch, which takes one input at a time, is a horizontal line."""
    first_set = report.throughput[0].inputs
    results = [one for one in report.throughput if one.inputs == first_set]
    sizes = sorted({one.batch_size for one in results})
    figure, (axes,) = _figure(1, 3.2)
    for name in report.candidates:
        points = [(one.batch_size, one.samples_per_s.p50) for one in results if one.candidate == name]
        colour = _colour_of(name, report.candidates)
        if name.startswith("pytorch-"):
            axes.axhline(points[0][1], color=colour, linestyle="--", label=f"{name}, one at a time")
        else:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set(xticks=sizes, xticklabels=[str(size) for size in sizes], ylim=(0, None))
    axes.minorticks_off()
    axes.set(xlabel="batch size", ylabel=f"samples per second ({results[0].count} {first_set})")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=_TEXT)
    return _svg(figure, "throughput")


def roofline_plot(report: BenchReport) -> str:
    """Return a chart of GFLOP/s over operations per byte read: the machine's limits, and one point per stage."""
    machine = report.machine
    figure, (axes,) = _figure(1, 4.6)
    intensities = [one.flops / one.bytes for one in report.roofline]
    left, right = min(intensities) / 3, max(intensities) * 3
    if machine.read_bytes_per_s is not None and machine.flops_per_s:
        right = max(right, 4 * max(machine.flops_per_s.values()) / machine.read_bytes_per_s)
        _draw_limits(axes, machine.read_bytes_per_s / 1e9, machine.flops_per_s, (left, right))
    markers = {"vision": "s", "prefill": "o", "latent step": "^", "readout": "D"}
    colours = dict(zip([size.name for size in report.inputs], [_MARK, *_OTHERS] * len(report.inputs), strict=False))
    for one in report.roofline:
        point = (one.flops / one.bytes, one.flops / one.measured_ms / 1e6)
        axes.scatter(*point, marker=markers[one.stage], color=colours[one.input], s=44, zorder=3)
    axes.set(xscale="log", yscale="log", xlim=(left, right), xlabel="operations per byte of weights and cache read")
    axes.set_ylabel("GFLOP/s")
    _plain_numbers(axes.yaxis, axes.xaxis)
    _marker_legend(axes, {stage: markers[stage] for stage in dict.fromkeys(one.stage for one in report.roofline)}, colours)
    return _svg(figure, "roofline")


def sweep_plot(sweep: Sweep) -> str:
    """Return a chart of latency and its stages over size, and of the cost per unit with the fitted curve."""
    unit = "token" if sweep.over == "prompt tokens" else "pixel"
    figure, (latency, cost) = _figure(1, 3.6, columns=2)
    sizes = [one.size for one in sweep.points]
    latency.plot(sizes, [one.ms.p50 for one in sweep.points], color=_TEXT, marker="o", label="end to end")
    for stage in [stage for stage in _STAGE_COLOURS if stage in sweep.points[0].stages_ms]:
        values = [one.stages_ms[stage].p50 for one in sweep.points]
        latency.plot(sizes, values, color=_STAGE_COLOURS[stage], marker=".", linewidth=1, label=stage)
    latency.set(xscale="log", yscale="log", xlabel=sweep.over, ylabel="milliseconds, median")
    latency.legend(frameon=False, labelcolor=_TEXT)
    cost.plot(sizes, [1e3 * one.ms.p50 / one.size for one in sweep.points], "o", color=_MARK, label="measured")
    cost.set(xscale="log", ylim=(0, None), xlabel=sweep.over, ylabel=f"microseconds per {unit}")
    _plain_numbers(latency.xaxis, latency.yaxis, cost.xaxis)
    if sweep.curve is not None:
        _draw_curve(cost, sweep)
    cost.legend(frameon=False, labelcolor=_TEXT)
    return _svg(figure, f"sweep {sweep.over}")


def _draw_curve(axes: "Axes", sweep: Sweep) -> None:
    import numpy as np

    curve = sweep.curve
    assert curve is not None
    sizes = np.geomspace(sweep.points[0].size, sweep.points[-1].size, 200)
    axes.plot(sizes, [1e3 * curve.milliseconds(size) / size for size in sizes], color=_MARK, linewidth=1, label="fitted")
    if curve.rises_at is not None:
        axes.axvline(curve.rises_at, color=_OTHERS[1], linestyle="--", label=f"25 % more from {curve.rises_at:,.0f}")


def _draw_limits(
    axes: "Axes", gigabytes_per_s: float, flops_per_s: Mapping[MatmulKind, float], span: tuple[float, float]
) -> None:
    """Draw a sloped line for memory, and a horizontal line for each number format of matmuls."""
    left, right = span
    for kind, flops in flops_per_s.items():
        level = flops / 1e9
        axes.plot([level / gigabytes_per_s, right], [level, level], color=_TEXT, linewidth=1.4)
        _note(axes, f"{kind}: {level:,.0f} GFLOP/s", (right, level), (-4, 5))
    fastest = max(flops_per_s.values()) / 1e9
    axes.plot([left, fastest / gigabytes_per_s], [left * gigabytes_per_s, fastest], color=_TEXT, linewidth=1.4)
    upper = left**0.3 * (fastest / gigabytes_per_s) ** 0.7
    _note(axes, f"memory: {gigabytes_per_s:.1f} GB/s", (upper, upper * gigabytes_per_s), (-8, 4))


def _note(axes: "Axes", text: str, point: tuple[float, float], offset: tuple[float, float]) -> None:
    """Write a text that ends near a point. `offset` is in typographic points."""
    axes.annotate(text, point, offset, textcoords="offset points", ha="right", color=_TEXT)


def _plain_numbers(*axis: "Axis") -> None:
    """Label powers of ten as plain numbers."""
    for one in axis:
        one.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def _bar(axes: "Axes", position: int, one: Latency, candidates: list[str]) -> None:
    left = 0.0
    if one.stages_ms:
        for stage, colour in _STAGE_COLOURS.items():
            if stage in one.stages_ms:
                axes.barh(position, one.stages_ms[stage].p50, 0.62, left=left, color=colour)
                left += one.stages_ms[stage].p50
    else:
        axes.barh(position, one.ms.p50, 0.62, color=_colour_of(one.candidate, candidates))
    axes.plot([one.ms.p50, one.ms.p95], [position, position], color=_TEXT, linewidth=1)


def _colour_of(name: str, candidates: list[str]) -> str:
    index = candidates.index(name)
    return _MARK if index == 0 else _OTHERS[(index - 1) % len(_OTHERS)]


def _legend(figure: "Figure", entries: list[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in entries]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(entries), frameon=False, labelcolor=_TEXT)


def _marker_legend(axes: "Axes", markers: dict[str, str], colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        *(Line2D([], [], marker=marker, linestyle="", color=_TEXT, label=stage) for stage, marker in markers.items()),
        *(Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in colours.items()),
    ]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=_TEXT)


def _figure(rows: int, row_inches: float, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """Return a figure and its `rows` x `columns` axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, rows * row_inches + 0.6), layout="constrained", facecolor="none")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_facecolor("none")
        axes.tick_params(colors=_TEXT, which="both")
        for part in (axes.xaxis.label, axes.yaxis.label):
            part.set_color(_TEXT)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_LINE)
        axes.grid(color=_LINE, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, list(grid.flat)


def _svg(figure: "Figure", name: str) -> str:
    """Return the figure as an SVG element, without the parts that only a separate file needs."""
    import matplotlib

    file = io.StringIO()
    settings: Any = {"svg.fonttype": "path", "svg.hashsalt": name}  # reproducible output
    with matplotlib.rc_context(settings):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(file.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    prefix = name.replace(" ", "-")  # ids of several charts on a page must differ
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
    for stand_in, colour in _PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg
