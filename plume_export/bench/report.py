"""A benchmark's results as JSON, and the environment that they were measured in."""

import os
import platform
import re
from datetime import datetime, timezone

import msgspec

from ..machine.cores import PROCESSOR, usable_core_count
from ..machine.gpu import Read, find_gpus, system_memory, text_of
from ..machine.software import package_version
from .hardware_limits import MachineLimits
from .inputs import InputSize
from .latency import ColdStart, Latency, LatencyRatio, RolloutParts
from .roofline import StageLimit
from .sweep import Sweep
from .throughput import Throughput

_PACKAGES = (
    "plume-export",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "torch",
    "transformers",
    "numpy",
)


class Environment(msgspec.Struct, frozen=True):
    """The machine and package versions. `load` is the average number of running processes in the minute before the run."""

    date: str
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    gpu: str | None
    system: str
    versions: dict[str, str]
    load: float | None


def environment(threads: int) -> Environment:
    """Describe this machine."""
    gpus = find_gpus()
    versions = {package: found for package in _PACKAGES if (found := package_version(package)) is not None}
    return Environment(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cpu=cpu_name(),
        cores=usable_core_count(),
        threads=threads,
        memory_bytes=system_memory().total_bytes,
        gpu=gpus[0].name if gpus else None,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **versions},
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def cpu_name(read: Read = text_of) -> str:
    """Return the CPU's model name as reported by the system."""
    found = re.search(r"^model name\s*:\s*(.+)$", read(PROCESSOR) or "", re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


class MeasuredBundle(msgspec.Struct, frozen=True):
    """A bundle that was measured."""

    name: str
    sha256: str
    backend: str
    precision: str
    checkpoint: str


class PeakMemory(msgspec.Struct, frozen=True):
    """Peak resident bytes of a candidate's process, over the runs for latency and throughput.

    The system counts a page of a file once per mapping, although it is in memory only once. `mapped_twice_bytes` is the number
    of bytes that were counted twice after the runs (None: not reported by the system).
    """

    candidate: str
    peak_bytes: int
    mapped_twice_bytes: int | None


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a benchmark. All lists have the order of `candidates`, with the measured bundle first.

    `baseline` is the candidate that ratios are relative to. `not_run` maps skipped candidates and inputs to reasons.
    """

    environment: Environment
    bundles: list[MeasuredBundle]
    candidates: list[str]
    baseline: str | None
    not_run: dict[str, str]
    runs: int
    inputs: list[InputSize]
    latency: list[Latency]
    ratios: list[LatencyRatio]
    throughput: list[Throughput]
    cold_start: list[ColdStart]
    memory: list[PeakMemory]
    machine: MachineLimits
    rollout: list[RolloutParts]
    roofline: list[StageLimit]
    sweeps: list[Sweep]
