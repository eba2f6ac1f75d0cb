"""Messages between the command and the processes that it measures: one JSON line per message."""

from typing import Literal, TypeAlias

import msgspec

from ..spec import ModelSpec
from .hardware_limits import MachineLimits


class BundleCandidate(msgspec.Struct, frozen=True, tag="bundle"):
    """A bundle in an Embedder. `threads` is None for a bundle that runs on a GPU."""

    name: str
    path: str
    threads: int | None
    verify_hashes: bool = True


class PytorchCandidate(msgspec.Struct, frozen=True, tag="pytorch"):
    """The PyTorch reference: weights from a checkpoint's directory, rollout and pixel limits from the bundle's `model`."""

    name: str
    directory: str
    model: ModelSpec
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"]
    threads: int
    is_compiled: bool


Candidate: TypeAlias = BundleCandidate | PytorchCandidate


class Load(msgspec.Struct, frozen=True, tag=True):
    """Request to load a candidate. The reply is Done."""

    candidate: Candidate


class Embed(msgspec.Struct, frozen=True, tag=True):
    """Request to embed rows of a JSON lines file and measure the time. The reply is Embedded."""

    file: str
    rows: list[int]
    batch_size: int


class TimeRollout(msgspec.Struct, frozen=True, tag=True):
    """Request to embed one row several times, with every call to the backend timed. The reply is RolloutTimes.

    This loads the bundle again, so the memory must be requested before.
    """

    file: str
    row: int
    runs: int


class AskMemory(msgspec.Struct, frozen=True, tag=True):
    """Request for the memory of the process. The reply is Memory."""


class MeasureLimits(msgspec.Struct, frozen=True, tag=True):
    """Request to measure the hardware's limits for a bundle. The reply is MachineLimits."""

    bundle: BundleCandidate


class Done(msgspec.Struct, frozen=True, tag=True):
    """Reply without a value."""


class Embedded(msgspec.Struct, frozen=True, tag=True):
    """Seconds from the input files to the embeddings, in total and by stage (empty if the candidate reports none)."""

    seconds: float
    stages: dict[str, float]
    embeddings: bytes  # float32 [rows, hidden]


class RolloutTime(msgspec.Struct, frozen=True):
    """One rollout, in seconds: every run of graph `latent_step`, the copies between them, and the total.

    The last run includes the suffix and is the readout. `runs` has one run per latent step.
    """

    total: float
    runs: list[float]
    copies: float


class RolloutTimes(msgspec.Struct, frozen=True, tag=True):
    """Several rollouts of one input."""

    rollouts: list[RolloutTime]


class Memory(msgspec.Struct, frozen=True, tag=True):
    """Resident bytes of the process, now and at peak, and the current bytes that are counted twice (None: unknown)."""

    resident: int
    peak: int
    mapped_twice: int | None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Reply with a PlumeExportError."""

    message: str
    fix: str | None


Request: TypeAlias = Load | Embed | TimeRollout | AskMemory | MeasureLimits
Reply: TypeAlias = Done | Embedded | RolloutTimes | Memory | MachineLimits | Failed
