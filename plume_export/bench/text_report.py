"""A benchmark's results as text tables and sentences, for the terminal and the HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass

from .latency import OTHER
from .report import BenchReport, Environment
from .sweep import Sweep

_STAGES = ("preprocess", "vision", "prefill", "rollout", OTHER)


@dataclass(frozen=True)
class TextTable:
    """A table of text. The first `labels` columns are words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    labels: int
    note: str = ""


def tables_of(report: BenchReport) -> list[TextTable]:
    """Return every table for which the report has data."""
    tables = [
        latency_table(report),
        stage_table(report),
        throughput_table(report),
        process_table(report),
        rollout_table(report),
        roofline_table(report),
        *(sweep_table(sweep) for sweep in report.sweeps),
    ]
    return [filled(table) for table in tables if table.rows]


def latency_table(report: BenchReport) -> TextTable:
    """Return one row per input and candidate."""
    ratios = {(ratio.input, ratio.candidate): ratio for ratio in report.ratios}
    first, baseline = report.candidates[0], report.baseline
    has_third = len(report.candidates) > 2  # for two candidates, one column is enough
    rows = []
    for one in report.latency:
        ratio = ratios.get((one.input, one.candidate))
        faster = ("", "") if ratio is None else (f"{ratio.times_faster:.2f}x", f"{ratio.low:.2f} to {ratio.high:.2f}")
        cosine = "" if one.cosine is None else f"{one.cosine:.6f}"
        against_baseline = "" if one.against_baseline is None else f"{one.against_baseline.times_faster:.2f}x"
        times = (number(one.ms.p50), number(one.ms.p95))
        rows.append((one.input, one.candidate, *times, *faster, *((against_baseline,) if has_third else ()), cosine))
    beside = (f"against {baseline}",) if has_third else ()
    return TextTable(
        f"latency, end to end ({report.runs} interleaved runs)",
        ("input", "candidate", "p50 ms", "p95 ms", f"{first} is faster", "95 % interval", *beside, "cosine"),
        rows,
        labels=2,
        note=""
        if baseline is None
        else "Ratio of the medians, with a bootstrap interval over rounds. "
        + (f"Against {baseline}: how many times faster each candidate is than {baseline}. " if has_third else "")
        + f"Cosine: similarity to the embedding of {baseline}.",
    )


def stage_table(report: BenchReport) -> TextTable:
    """Return one row per input and bundle."""
    rows = [
        (one.input, one.candidate, *(number(one.stages_ms[stage].p50) if stage in one.stages_ms else "" for stage in _STAGES))
        for one in report.latency
        if one.stages_ms
    ]
    return TextTable("stages, p50 in ms", ("input", "candidate", *_STAGES), rows, labels=2)


def throughput_table(report: BenchReport) -> TextTable:
    """Return one row per set of inputs, candidate and batch size."""
    rows = [
        (
            f"{one.count} {one.inputs}",
            one.candidate,
            f"{one.batch_size}",
            number(one.samples_per_s.p50),
            number(one.samples_per_s.p95),
            "" if one.times_faster is None else f"{one.times_faster:.2f}x",
        )
        for one in report.throughput
    ]
    first = report.candidates[0]
    return TextTable(
        "throughput",
        ("inputs", "candidate", "batch size", "samples/s", "95 % reach", f"{first} is faster"),
        rows,
        labels=2,
        note=(
            f"PyTorch takes one input at a time, so {first} at its best batch size is compared with it. Bundles are compared "
            "at the same batch size."
        )
        if any(name.startswith("pytorch-") for name in report.candidates)
        else "",
    )


def process_table(report: BenchReport) -> TextTable:
    """Return one row per candidate: cold start and memory."""
    cold = {one.candidate: one for one in report.cold_start}
    held = {one.candidate: one for one in report.memory}
    rows = []
    for name in report.candidates:
        start = cold.get(name)
        first = ("", "", "")
        if start is not None:
            first = (f"{start.seconds.p50:.2f}", megabytes(start.resident_bytes), megabytes(start.peak_bytes))
        twice = held[name].mapped_twice_bytes
        rows.append((name, *first, megabytes(held[name].peak_bytes), "" if twice is None else megabytes(twice)))
    return TextTable(
        "new process",
        (
            "candidate",
            "cold start s",
            "resident after start, MB",
            "peak at start, MB",
            "peak over all runs, MB",
            "counted twice, MB",
        ),
        rows,
        labels=1,
        note=_process_note(report),
    )


def _process_note(report: BenchReport) -> str:
    twice = "Counted twice: weights that two graphs map from one file, after all runs. They are in memory only once."
    if not report.cold_start:
        return twice
    start = "Cold start: from the start of a process to its first embedding (a text). The files were in the page cache."
    return f"{start} Median of {report.cold_start[0].processes} processes. {twice}"


def rollout_table(report: BenchReport) -> TextTable:
    """Return one row per input: the parts of the rollout's time."""
    rows = [
        (
            one.input,
            f"{one.steps}",
            *(number(part.p50) for part in (one.step_ms, one.readout_ms, one.copies_ms, one.loop_ms_per_step, one.total_ms)),
        )
        for one in report.rollout
    ]
    return TextTable(
        f"rollout of {report.candidates[0]}, p50 in ms",
        ("input", "passes", "one step", "readout", "all copies", "loop, per step", "total"),
        rows,
        labels=1,
        note="Measured in a separate pass with every call timed. The loop is the time outside of graph runs and copies.",
    )


def roofline_table(report: BenchReport) -> TextTable:
    """Return one row per input and stage."""
    rows = [
        (
            one.input,
            one.stage,
            number(one.flops / 1e9),
            number(one.bytes / 1e6),
            "" if one.limit_ms is None else number(one.limit_ms),
            one.bound_by or "not measured",
            number(one.measured_ms),
            "" if one.share_of_limit is None else f"{100 * one.share_of_limit:.0f} %",
        )
        for one in report.roofline
    ]
    return TextTable(
        f"{report.candidates[0]} and this machine's limits",
        ("input", "stage", "GFLOP", "MB read", "limit ms", "limited by", "measured ms", "of the limit"),
        rows,
        labels=2,
        note="Above 100 %: weights were read from a cache, which is faster than memory."
        if any((one.share_of_limit or 0) > 1 for one in report.roofline)
        else "",
    )


def sweep_table(sweep: Sweep) -> TextTable:
    """Return one row per size."""
    is_text = sweep.over == "prompt tokens"
    rows = [
        (
            f"{one.size:,}",
            *([] if is_text else [f"{one.prompt_tokens:,}"]),
            number(one.ms.p50),
            number(one.ms.p95),
            number(1e3 * one.ms.p50 / one.size),
            *(number(one.stages_ms[stage].p50) if stage in one.stages_ms else "" for stage in _STAGES[:-1]),
        )
        for one in sweep.points
    ]
    sizes = (sweep.over,) if is_text else (sweep.over, "prompt tokens")
    columns = (*sizes, "p50 ms", "p95 ms", f"µs a {'token' if is_text else 'pixel'}", *_STAGES[:-1])
    return TextTable(f"sweep over {sweep.over}", columns, rows, labels=0)


def filled(table: TextTable) -> TextTable:
    """Return the table without empty columns."""
    kept = [index for index in range(len(table.columns)) if any(row[index] for row in table.rows)]
    rows = [tuple(row[index] for index in kept) for row in table.rows]
    columns = tuple(table.columns[index] for index in kept)
    return TextTable(table.title, columns, rows, sum(index < table.labels for index in kept), table.note)


def number(value: float) -> str:
    """Return a number with three significant digits, and without decimals from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 1 else f"{value:.3g}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"


# Load per core in the minute before, from which on times are doubtful.
_DISTURBING_SHARE = 0.5


def environment_lines(report: BenchReport) -> list[str]:
    """Return lines about the measured bundle and the machine."""
    bundles = [f"{one.name}: {one.backend} {one.precision}, bundle {one.sha256[:12]}" for one in report.bundles]
    return [*bundles, _machine_line(report.environment), _versions_line(report.environment), _limits_line(report)]


def sweep_lines(sweeps: Sequence[Sweep]) -> list[str]:
    """Return lines about the size at which the cost per unit has risen by 25 %, according to the fitted curve."""
    return [line for sweep in sweeps if (line := _sweep_line(sweep)) is not None]


def left_out_lines(report: BenchReport) -> list[str]:
    """Return lines about candidates and inputs that were not measured, with the reasons."""
    return [f"not run: {name}: {reason}" for name, reason in report.not_run.items()] + [
        f"not measured: {name}: {reason}" for name, reason in report.machine.reasons.items()
    ]


def warning_lines(report: BenchReport) -> list[str]:
    """Return warnings about doubtful times: other work used the cores just before the measurement."""
    found = report.environment
    if found.load is None or found.load < _DISTURBING_SHARE * found.cores:
        return []
    load = f"load {found.load:.1f} on {found.cores} cores before"
    return [f"note: other work was running on this machine ({load}); measure again when it is idle"]


def _machine_line(environment: Environment) -> str:
    memory = f", {environment.memory_bytes / 1e9:.0f} GB"
    gpu = "" if environment.gpu is None else f", {environment.gpu}"
    load = "" if environment.load is None else f"; load {environment.load:.1f} before"
    return (
        f"{environment.date}: {environment.cpu}, {environment.cores} cores{memory}{gpu}, {environment.system}; "
        f"{environment.threads} threads{load}"
    )


def _versions_line(environment: Environment) -> str:
    return ", ".join(f"{package} {version}" for package, version in environment.versions.items())


def _limits_line(report: BenchReport) -> str:
    machine = report.machine
    parts = [] if machine.read_bytes_per_s is None else [f"reads {machine.read_bytes_per_s / 1e9:.1f} GB/s"]
    parts += [f"multiplies {flops / 1e9:,.0f} GFLOP/s in {kind}" for kind, flops in machine.flops_per_s.items()]
    return f"this machine {', '.join(parts)}" if parts else "this machine's limits were not measured"


def _sweep_line(sweep: Sweep) -> str | None:
    curve = sweep.curve
    if curve is None:
        return None
    unit = "token" if sweep.over == "prompt tokens" else "pixel"
    cheapest = f"a {unit} is cheapest at {curve.cheapest_size:,.0f} {sweep.over}, {1e3 * curve.cheapest_ms_per_unit:.3g} µs"
    rise = (
        f"does not cost 25 % more up to {sweep.points[-1].size:,}"
        if curve.rises_at is None
        else f"costs 25 % more from {curve.rises_at:,.0f} on"
    )
    return f"by a curve fitted within {100 * curve.worst_error:.0f} %, {cheapest}, and {rise}"
