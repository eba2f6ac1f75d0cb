"""Tensors that are checked and hashed when they are read for the first time. This saves a separate pass over the files."""

from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .tensors import CheckpointTensors


class ExaminedTensors(CheckpointTensors):
    """Checks every tensor when it is read for the first time.

    Raises CheckpointError for a value that is not finite, in addition to the errors of CheckpointTensors.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._digests: dict[str, str] = {}

    def read(self, name: str) -> Tensor:
        """Return a tensor in its stored dtype."""
        tensor = super().read(name)
        if name not in self._digests:
            _check_finite(name, tensor)
            self._digests[name] = _digest(tensor)
        return tensor

    def digest(self, name: str) -> str:
        """Return the hash of a tensor's dtype, shape and bytes. The tensor is read if it was not read before."""
        if name not in self._digests:
            self.read(name)
        return self._digests[name]


def _check_finite(name: str, tensor: Tensor) -> None:
    # One pass without allocation: a NaN or infinity makes the minimum or maximum non-finite.
    if tensor.numel() == 0 or bool(torch.stack(tensor.aminmax()).isfinite().all()):
        return
    nans = int(tensor.isnan().sum())
    counts = {"NaN": nans, "infinity": int((~tensor.isfinite()).sum()) - nans}
    found = " and ".join(f"{count:,} times {value}" for value, count in counts.items() if count)
    raise CheckpointError(
        f"The tensor {name} has {found} among its {tensor.numel():,} values.",
        fix="download or convert the checkpoint again, or use one from before training diverged",
    )


def _digest(tensor: Tensor) -> str:
    digest = sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
