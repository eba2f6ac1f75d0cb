"""The PyTorch reference as one of those that are measured."""

from pathlib import Path

import pytest
import torch

from plume_export.bench.pytorch_runner import PytorchRunner
from plume_export.bench.worker_messages import PytorchCandidate
from plume_export.bundle import Bundle
from plume_export.errors import PlumeExportError


def test_pytorch_without_a_gpu_is_refused(tiny_cpu: Bundle, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    candidate = PytorchCandidate("pytorch-bf16", str(tmp_path), tiny_cpu.manifest.model, "bf16", "cuda", 1, False)
    with pytest.raises(PlumeExportError, match="cannot use this machine's GPU"):
        PytorchRunner(candidate)
