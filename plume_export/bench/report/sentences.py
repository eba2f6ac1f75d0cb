"""What a report says in words: where it was measured, what the machine allows, what a sweep shows."""

from collections.abc import Sequence

from ..environment import Environment
from ..sweep import Sweep
from .report import BenchReport

# Of the cores, wanted by other work in the minute before.
_DISTURBING_SHARE = 0.5


def environment_lines(report: BenchReport) -> list[str]:
    """Say what was measured, and where."""
    bundles = [f"{one.name}: {one.backend} {one.precision}, bundle {one.sha256[:12]}" for one in report.bundles]
    return [*bundles, _machine_line(report.environment), _versions_line(report.environment), _limits_line(report)]


def sweep_lines(sweeps: Sequence[Sweep]) -> list[str]:
    """Say where the cost of a unit starts to rise, by the fitted curve."""
    return [line for sweep in sweeps if (line := _sweep_line(sweep)) is not None]


def left_out_lines(report: BenchReport) -> list[str]:
    """Say who or what was not measured, and why."""
    return [f"not run: {name}: {reason}" for name, reason in report.not_run.items()] + [
        f"not measured: {name}: {reason}" for name, reason in report.machine.reasons.items()
    ]


def warning_lines(report: BenchReport) -> list[str]:
    """Say what makes the times doubtful: other work that wanted the cores, just before."""
    found = report.environment
    if found.load is None or found.load < _DISTURBING_SHARE * found.cores:
        return []
    load = f"load {found.load:.1f} on {found.cores} cores before"
    return [f"note: other work used this machine ({load}): measure again when it is idle"]


def _machine_line(environment: Environment) -> str:
    memory = "" if environment.memory_bytes is None else f", {environment.memory_bytes / 1e9:.0f} GB"
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
