"""Which model a checkpoint is: a hash over its tensors, whatever files they are in."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from .examined import ExaminedTensors


def checkpoint_sha256(tensors: ExaminedTensors) -> str:
    """Return the hash of a checkpoint's tensors: names, dtypes, shapes and bytes, in the order of the names.

    Path, shards, key layout and tensors that PLUME does not need do not count. Only tensors that were not read yet are read.
    Raises CheckpointError for NaN and infinity in one of them.
    """
    names = tensors.names
    with ThreadPoolExecutor() as pool:
        lines = [f"{name} {digest}\n" for name, digest in zip(names, pool.map(tensors.digest, names), strict=True)]
    return sha256("".join(lines).encode()).hexdigest()
