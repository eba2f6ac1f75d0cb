"""Runs the PyTorch reference for a measurement."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..checkpoint import CheckpointTensors
from ..errors import PlumeExportError
from ..inputs import Source
from ..reference import Reference, ReferenceProcessor
from ..stages import FloatArray
from .worker_messages import PytorchCandidate, RolloutTime


class PytorchRunner:
    """The reference with all weights in memory. It embeds one input at a time and ignores the batch size."""

    def __init__(self, candidate: PytorchCandidate) -> None:
        self._device = candidate.device
        if self._device == "cuda" and not torch.cuda.is_available():
            raise PlumeExportError(
                f"PyTorch {torch.__version__} cannot use this machine's GPU.",
                fix="install a PyTorch with CUDA, or omit --against pytorch",
            )
        torch.set_num_threads(candidate.threads)
        dtype = torch.bfloat16 if candidate.precision == "bf16" else torch.float32
        directory = Path(candidate.directory)
        self._reference = Reference(directory, CheckpointTensors(directory), candidate.model, dtype=dtype, device=self._device)
        self._processor = ReferenceProcessor(directory, candidate.model)
        if candidate.is_compiled:
            _refuse_silent_eager_runs()
            self._reference.compile()

    def embed(self, sources: Sequence[Source], batch_size: int) -> FloatArray:
        embeddings = [self._reference.stages(self._processor(source.read())).embedding for source in sources]
        if self._device == "cuda":
            torch.cuda.synchronize()
        return np.stack(embeddings)

    def stage_seconds(self) -> dict[str, float]:
        return {}

    def time_rollout(self, source: Source, runs: int) -> list[RolloutTime]:
        raise AssertionError("the rollout is timed only for bundles")

    def close(self) -> None:
        """Do nothing: the process ends afterwards."""


def _refuse_silent_eager_runs() -> None:
    """Make torch.compile fail if a function needs too many compiled versions. By default it would then run uncompiled."""
    torch._dynamo.config.fail_on_recompile_limit_hit = True
