"""What a process that is measured holds: something that embeds."""

from collections.abc import Sequence
from typing import Protocol

from ...embed_file import Source
from ...stages import FloatArray
from .contestant import BundleContestant, Contestant
from .protocol import RolloutTime


class Subject(Protocol):
    """One loaded contestant. Whoever opened it closes it."""

    def embed(self, sources: Sequence[Source], batch_size: int) -> FloatArray:
        """Return unit vectors [inputs, hidden] when all work is done; the inputs' files are read in it."""

    def stage_seconds(self) -> dict[str, float]:
        """Return what each stage of the last `embed` took; nothing where it cannot tell."""

    def time_rollout(self, source: Source, runs: int) -> list[RolloutTime]:
        """Return the parts of the rollout of one input, for every run."""

    def close(self) -> None: ...


def open_subject(contestant: Contestant) -> Subject:
    """Load a contestant. Only what it needs is imported, so that its process holds nothing of another's."""
    if isinstance(contestant, BundleContestant):
        from .bundle_subject import BundleSubject

        return BundleSubject(contestant)
    from .pytorch_subject import PytorchSubject

    return PytorchSubject(contestant)
