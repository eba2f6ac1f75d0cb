"""Run the PyTorch reference and a bundle on the same inputs. This is the only module of parity that needs torch."""

from collections.abc import Sequence

import torch

from ..checkpoint import Checkpoint
from ..errors import InputError
from ..inputs import Item
from ..reference import Reference, ReferenceProcessor
from ..runtime.embedder import Embedder
from ..spec import Precision
from ..stages import Stages
from .compare import ParityReport, compare_inputs
from .same_checkpoint import check_same_checkpoint


def measure_parity(
    embedder: Embedder, checkpoint: Checkpoint, items: Sequence[Item], *, reference_precision: Precision = "fp32"
) -> ParityReport:
    """Compare a bundle with the checkpoint that it was made from. The reference reads its weights one layer at a time.

    The number of latent steps and the pixel limits are the bundle's. Raises CheckpointError for another checkpoint. Raises
    InputError if there are no items or two items have the same name; an item without an id is named by its index.
    """
    names = [item.id or str(index) for index, item in enumerate(items)]
    if not names:
        raise InputError("There are no inputs to compare.", fix='pass inputs, one per line, such as {"text": "..."}')
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Two inputs have the same name {twice!r}.", fix="give every input its own id")
    manifest = embedder.bundle.manifest
    check_same_checkpoint(checkpoint, manifest)
    dtype = torch.bfloat16 if reference_precision == "bf16" else torch.float32
    reference = Reference(checkpoint.directory, checkpoint.tensors, manifest.model, dtype=dtype, resident=False)
    processor = ReferenceProcessor(checkpoint.directory, manifest.model)
    expected: dict[str, Stages] = {}
    actual: dict[str, Stages] = {}
    for name, item in zip(names, items, strict=True):
        expected[name] = reference.stages(processor(item))
        actual[name] = embedder.stages(item)
    return compare_inputs(expected, actual, precision=manifest.precision, top_k=manifest.model.transition.top_k)
