"""Check the file names in a checkpoint's JSON files. A crafted checkpoint may contain any name."""

from pathlib import Path

import msgspec

from ..bundle import is_plain_name
from ..errors import CheckpointError

# Keys that list version-specific files, which transformers reads in place of the usual ones.
_LISTS = {"config.json": "configuration_files", "tokenizer_config.json": "fast_tokenizer_files"}


def check_stands_beside(file: Path, what: str, name: str) -> None:
    """Raise CheckpointError unless `name`, found in `file`, is a plain name in the same directory. It may be a link there."""
    if "/" in name or not is_plain_name(name):
        raise CheckpointError(
            f"{file} refers to {what}; expected a file in the same directory.", fix="download or copy the checkpoint again"
        )


def check_listed_files(directory: Path) -> None:
    """Raise CheckpointError if transformers would read a file outside the checkpoint's directory."""
    for name, key in _LISTS.items():
        for listed in _listed(directory / name, key):
            if not isinstance(listed, str):
                raise CheckpointError(
                    f"{directory / name} has a {key} that is not a list of names.", fix="download or copy the checkpoint again"
                )
            check_stands_beside(directory / name, f"{listed!r} in {key}", listed)


def _listed(file: Path, key: str) -> list[object]:
    """Return a list from a JSON file, or [] if the file is missing or corrupt. That is reported when the file is needed."""
    try:
        content = msgspec.json.decode(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    listed = content.get(key) if isinstance(content, dict) else None
    if listed is None:
        return []
    return listed if isinstance(listed, list) else [None]
