"""A checkpoint that was found and checked, with its origin and the hash of its tensors."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..bundle import CheckpointOrigin, sha256_of_file
from ..spec import ModelSpec
from .examined import ExaminedTensors


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its directory, the name that the user gave, its tensors and its dimensions."""

    directory: Path
    name: str
    tensors: ExaminedTensors
    model: ModelSpec


def checkpoint_sha256(tensors: ExaminedTensors) -> str:
    """Return the hash of a checkpoint's tensors: names, dtypes, shapes and bytes, sorted by name.

    The hash does not depend on the path, on shards, on the key layout, or on tensors that PLUME does not need. Only tensors
    that were not read before are read. Raises CheckpointError if one of them has NaN or infinity.
    """
    names = tensors.names
    with ThreadPoolExecutor() as pool:
        lines = [f"{name} {digest}\n" for name, digest in zip(names, pool.map(tensors.digest, names), strict=True)]
    return sha256("".join(lines).encode()).hexdigest()


_COMMIT = re.compile(r"[0-9a-f]{40}")


def origin_of(checkpoint: Checkpoint) -> CheckpointOrigin:
    """Return the name, the hashes, and the repository and commit if the checkpoint came from the hub.

    Reads all tensors that were not read before.
    """
    repository, revision = hub_snapshot(checkpoint.directory) or (None, None)
    return CheckpointOrigin(
        name=checkpoint.name,
        repository=repository,
        revision=revision,
        tensors_sha256=checkpoint_sha256(checkpoint.tensors),
        config_sha256=sha256_of_file(checkpoint.directory / "config.json"),
    )


def hub_snapshot(directory: Path) -> tuple[str, str] | None:
    """Return repository and commit of a directory in the hub's cache; None for any other directory.

    Source: huggingface_hub, models--OWNER--NAME/snapshots/COMMIT. Names there never contain two consecutive hyphens.
    """
    parts = directory.resolve().parts
    for folder, snapshots, commit in zip(parts, parts[1:], parts[2:], strict=False):
        kind, *names = folder.split("--")
        if snapshots == "snapshots" and kind == "models" and len(names) in (1, 2) and all(names) and _COMMIT.fullmatch(commit):
            return "/".join(names), commit
    return None
