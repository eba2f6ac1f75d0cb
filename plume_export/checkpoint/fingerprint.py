"""Which model a checkpoint is: a hash over its tensors, whatever files they are in."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import torch
from torch import Tensor

from .tensors import CheckpointTensors


def checkpoint_sha256(tensors: CheckpointTensors) -> str:
    """Return the hash of a checkpoint's tensors: names, dtypes, shapes and bytes.

    Path, shards, key layout and tensors that PLUME does not need do not count.
    """
    names = tensors.names
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: _tensor_digest(tensors.read(name)), names)
        lines = [f"{name} {digest}\n" for name, digest in zip(names, digests, strict=True)]
    return sha256("".join(lines).encode()).hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    digest = sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
