"""A bundle that is measured, as a user runs it: in an Embedder."""

from collections.abc import Sequence

from ...bundle import open_bundle
from ...embed_file import Source
from ...runtime.embedder import Embedder
from ...runtime.open_backend import open_backend
from ...stages import FloatArray
from .contestant import BundleContestant
from .protocol import RolloutTime
from .timed_backend import CallLog, TimedBackend


class BundleSubject:
    """An Embedder with its stopwatch."""

    def __init__(self, contestant: BundleContestant) -> None:
        self._contestant = contestant
        self._embedder = Embedder(contestant.path, threads=contestant.threads, verify_hashes=contestant.verify_hashes)

    def embed(self, sources: Sequence[Source], batch_size: int) -> FloatArray:
        self._embedder.stopwatch.reset()
        return self._embedder.embed([source.read() for source in sources], batch_size=batch_size)

    def stage_seconds(self) -> dict[str, float]:
        return dict(self._embedder.stopwatch.seconds)

    def time_rollout(self, source: Source, runs: int) -> list[RolloutTime]:
        """The plain embedder is closed first, so that memory holds the bundle once."""
        self.close()
        bundle = open_bundle(self._contestant.path, verify_hashes=False)
        log = CallLog()
        backend = TimedBackend(open_backend(bundle, threads=self._contestant.threads), log)
        with Embedder(bundle, backend=backend) as embedder:
            embedder.embed([source.read()])
            return [_time_rollout(embedder, source, log) for _ in range(runs)]

    def close(self) -> None:
        self._embedder.close()


def _time_rollout(embedder: Embedder, source: Source, log: CallLog) -> RolloutTime:
    log.calls.clear()
    embedder.stopwatch.reset()
    embedder.embed([source.read()])
    kinds = [kind for kind, _ in log.calls]
    rollout = log.calls[kinds.index("prefill") + 1 :]
    return RolloutTime(
        total=embedder.stopwatch.seconds["rollout"],
        runs=[seconds for kind, seconds in rollout if kind == "latent_step"],
        copies=sum(seconds for kind, seconds in rollout if kind == "copy"),
    )
