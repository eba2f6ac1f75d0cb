"""What a report says in words."""

from typing import Any

from plume_export.bench.hardware_limits import MachineLimits
from plume_export.bench.report import BenchReport, Environment
from plume_export.bench.text_report import environment_lines, left_out_lines, warning_lines


def report(**changes: Any) -> BenchReport:
    """A report of nothing but where it was measured."""
    machine = {
        "date": "d",
        "cpu": "c",
        "cores": 4,
        "threads": 2,
        "memory_bytes": 16 << 30,
        "gpu": None,
        "system": "s",
        "versions": {},
    }
    lists = ("bundles", "candidates", "inputs", "latency", "ratios", "throughput", "cold_start", "memory", "rollout")
    fields: dict[str, Any] = {name: [] for name in (*lists, "roofline", "sweeps")}
    load = changes.pop("load", None)
    limits = MachineLimits(None, {}, {"memory": "too little is free"})
    fields |= {"environment": Environment(load=load, **machine), "machine": limits, "baseline": None, "not_run": {}, "runs": 1}
    return BenchReport(**(fields | changes))


def test_a_busy_machine_is_told() -> None:
    assert warning_lines(report(load=1.9)) == []
    assert warning_lines(report(load=None)) == []
    assert "load 2.1 on 4 cores" in warning_lines(report(load=2.1))[0]


def test_nothing_is_left_out_silently() -> None:
    lines = left_out_lines(report(not_run={"pytorch-bf16-compiled": "no compiler"}))
    assert lines == ["not run: pytorch-bf16-compiled: no compiler", "not measured: memory: too little is free"]
    assert environment_lines(report())[-1] == "this machine's limits were not measured"
