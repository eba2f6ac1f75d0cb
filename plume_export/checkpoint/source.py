"""Find a checkpoint: a directory, or a repository on the Hugging Face hub."""

import os
from pathlib import Path

from ..bundle import MANIFEST
from ..errors import CheckpointError
from ..samples import PLUME_TINY, plume_tiny_directory
from .named_files import check_listed_files

_PATTERNS = ["*.json", "*.txt", "*.jinja", "*.safetensors"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def resolve_checkpoint(name: str, *, revision: str | None = None, offline: bool) -> Path:
    """Return the directory of a checkpoint: `name` itself, or the local copy of a hub id (downloaded unless `offline`).

    `revision` is a branch, tag or commit of the hub's repository; None means the main branch. "plume-tiny" is the sample model
    of this package, unless a directory of that name exists.

    Raises CheckpointError for a checkpoint that is missing, cannot be downloaded or is not in safetensors format.
    """
    directory = Path(name)
    if name == PLUME_TINY and not _is_dir(directory):
        directory = plume_tiny_directory()
    if not _is_dir(directory):
        directory = _from_hub(name, revision, offline=offline)
    elif revision is not None:
        raise CheckpointError(
            f"{name} is a local directory, but the revision {revision!r} is for a hub repository.",
            fix="omit --revision, or pass the hub id",
        )
    _check_contents(directory)
    return directory


def _from_hub(name: str, revision: str | None, *, offline: bool) -> Path:
    if os.path.lexists(name):
        found = "a file" if Path(name).is_file() else "a directory that cannot be opened"
        raise CheckpointError(f"{name} is {found}; expected the directory of a checkpoint.", fix="pass its parent directory")
    if directory_like(name):
        raise CheckpointError(
            f"The checkpoint directory {name} does not exist.", fix="check the path, or pass a hub id as owner/name"
        )
    if revision == "":
        raise CheckpointError(
            "The revision is empty; expected a branch, tag or commit.", fix="omit --revision for the main branch"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, local_files_only=offline))
    except Exception as error:  # the hub client raises its own errors, httpx's and OS errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if offline:
            raise CheckpointError(
                f"{_at(name, revision)} is neither a directory nor in the local hub cache: {reason}",
                fix="omit --offline to download it",
            ) from error
        raise CheckpointError(
            f"{_at(name, revision)} is not a directory and could not be downloaded from the hub: {reason}",
            fix="check the name and the network, or pass a local directory (--offline uses only the local cache)",
        ) from error


def _at(name: str, revision: str | None) -> str:
    return name if revision is None else f"{name} at revision {revision!r}"


def _is_dir(path: Path) -> bool:
    """Return True for a directory. Return False also for a name that no file can have, such as one that is too long."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def directory_like(name: str) -> bool:
    """Return True if a name can only be a path. A hub id is owner/name."""
    return name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/")


def _check_contents(directory: Path) -> None:
    if (directory / MANIFEST).is_file():
        raise CheckpointError(f"{directory} is a bundle, not a checkpoint.", fix="pass the directory that training saved")
    if (directory / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{directory} is a LoRA adapter, not a complete checkpoint.",
            fix="merge it first: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(DIR)",
        )
    check_listed_files(directory)
    if any(directory.glob("*.safetensors")) or (directory / "model.safetensors.index.json").is_file():
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{directory} has only pickle weights ({pickles[0]}). They are not loaded, because loading them can run code.",
            fix="convert to safetensors: load with torch.load(..., weights_only=True), then safetensors.torch.save_file",
        )
    raise CheckpointError(f"{directory} has no *.safetensors weights.", fix="pass the directory of a complete checkpoint")
