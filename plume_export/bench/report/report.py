"""All that `bench` finds, for a script; tables and page are made of it."""

import msgspec

from ..cold_start import ColdStart
from ..environment import Environment
from ..inputs import InputSize
from ..latency import Latency, LatencyRatio
from ..limits.machine_limits import MachineLimits
from ..rollout_parts import RolloutParts
from ..roofline import StageLimit
from ..sweep import Sweep
from ..throughput import Throughput


class MeasuredBundle(msgspec.Struct, frozen=True):
    """The bundle that was measured, or another that it was measured against."""

    name: str
    sha256: str
    backend: str
    precision: str
    checkpoint: str


class PeakMemory(msgspec.Struct, frozen=True):
    """Peak resident bytes of a contestant's process, over the runs for latency and throughput.

    The system counts a file's page as often as it is mapped: `mapped_twice_bytes`, of what was resident behind the runs, are
    in memory once and counted twice (None: the system does not tell).
    """

    contestant: str
    peak_bytes: int
    mapped_twice_bytes: int | None


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """`contestants` are in the order in which they stand in every list, the measured bundle first.

    `baseline` is whom everyone is compared with. `not_run` says why a contestant or an input was left out, by name.
    """

    environment: Environment
    bundles: list[MeasuredBundle]
    contestants: list[str]
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
