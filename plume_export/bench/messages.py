"""Messages between the command and the processes that it measures: one JSON line each way."""

from typing import Literal, TypeAlias

import msgspec

from ..spec import ModelSpec
from .hardware_limits import MachineLimits


class BundleCandidate(msgspec.Struct, frozen=True, tag="bundle"):
    """A bundle in an Embedder. `threads` None: it runs on a GPU."""

    name: str
    path: str
    threads: int | None
    verify_hashes: bool = True


class PytorchCandidate(msgspec.Struct, frozen=True, tag="pytorch"):
    """The PyTorch reference: weights of a checkpoint's directory, rollout and pixel limits of the bundle's `model`."""

    name: str
    directory: str
    model: ModelSpec
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"]
    threads: int
    is_compiled: bool


Candidate: TypeAlias = BundleCandidate | PytorchCandidate


class Load(msgspec.Struct, frozen=True, tag=True):
    """Make a candidate ready. It is answered by Done."""

    candidate: Candidate


class Embed(msgspec.Struct, frozen=True, tag=True):
    """Embed rows of a JSON lines file, and tell how long it took. It is answered by Embedded."""

    file: str
    rows: list[int]
    batch_size: int


class TimeRollout(msgspec.Struct, frozen=True, tag=True):
    """Embed one row several times, with every call to the backend timed. It is answered by RolloutTimes.

    The bundle is loaded again for it, so memory is asked for before.
    """

    file: str
    row: int
    runs: int


class AskMemory(msgspec.Struct, frozen=True, tag=True):
    """It is answered by Memory."""


class MeasureLimits(msgspec.Struct, frozen=True, tag=True):
    """Measure what the hardware allows for a bundle. It is answered by MachineLimits."""

    bundle: BundleCandidate


class Done(msgspec.Struct, frozen=True, tag=True):
    """It was done."""


class Embedded(msgspec.Struct, frozen=True, tag=True):
    """Seconds from the inputs' files to the embeddings, of which so many in each stage (none where it cannot tell)."""

    seconds: float
    stages: dict[str, float]
    embeddings: bytes  # float32 [rows, hidden]


class RolloutTime(msgspec.Struct, frozen=True):
    """One rollout, in seconds: every run of graph `latent_step`, the copies between them, and all of it together.

    The last run takes the suffix along and is the readout. `runs` has a run for each latent step.
    """

    total: float
    runs: list[float]
    copies: float


class RolloutTimes(msgspec.Struct, frozen=True, tag=True):
    """Several rollouts of one input."""

    rollouts: list[RolloutTime]


class Memory(msgspec.Struct, frozen=True, tag=True):
    """Resident bytes of the process, now and at their peak, and those of now that are counted twice (None: unknown)."""

    resident: int
    peak: int
    mapped_twice: int | None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A PlumeExportError."""

    message: str
    fix: str | None


Request: TypeAlias = Load | Embed | TimeRollout | AskMemory | MeasureLimits
Reply: TypeAlias = Done | Embedded | RolloutTimes | Memory | MachineLimits | Failed
