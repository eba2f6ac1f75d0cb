"""Run the PyTorch reference and a bundle on the same inputs. The one place of parity that needs torch."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoint import CheckpointTensors
from ..preprocess import Item
from ..reference import Reference, ReferenceProcessor
from ..runtime.embedder import Embedder
from ..spec import Precision
from ..stages import Stages
from .compare import ParityReport, compare_inputs


def measure_parity(
    embedder: Embedder, directory: Path, items: Sequence[Item], *, reference_precision: Precision = "fp32"
) -> ParityReport:
    """Compare a bundle with the checkpoint it was made from. The reference's weights are read layer by layer."""
    manifest = embedder.bundle.manifest
    dtype = torch.bfloat16 if reference_precision == "bf16" else torch.float32
    reference = Reference(directory, CheckpointTensors(directory), manifest.model, dtype=dtype, resident=False)
    processor = ReferenceProcessor(directory, manifest.model)
    names = [item.id or str(index) for index, item in enumerate(items)]
    expected: dict[str, Stages] = {}
    actual: dict[str, Stages] = {}
    for name, item in zip(names, items, strict=True):
        expected[name] = reference.stages(processor(item))
        actual[name] = embedder.stages(item)
    return compare_inputs(expected, actual, precision=manifest.precision, top_k=manifest.model.transition.top_k)
