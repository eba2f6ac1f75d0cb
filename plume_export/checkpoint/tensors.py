"""The named tensors of a checkpoint with any key layout, prefix or number of files."""

import os
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from ..weight_names import canonical_name
from .named_files import check_stands_beside

INDEX = "model.safetensors.index.json"

# Other dtypes are those of quantised checkpoints, whose scales are unknown here.
_DTYPES = ("F64", "F32", "F16", "BF16")


class _Index(msgspec.Struct):
    """The map from keys to shards."""

    weight_map: dict[str, str]


class CheckpointTensors:
    """Tensors by canonical name, read one at a time.

    Every read opens the file and closes it again: mapped pages count as resident, and so memory is bounded by one tensor.
    Raises CheckpointError for corrupt files and for two keys of the same tensor.
    """

    def __init__(self, directory: Path) -> None:
        self._stored: dict[str, tuple[Path, str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file, keys in _files_and_keys(directory):
            for key, shape in _shapes_in(file, keys).items():
                name = canonical_name(key)
                if name is None:
                    continue
                if name in self._stored:
                    other = self._stored[name]
                    raise CheckpointError(
                        f"Key {key!r} in {file} and key {other[1]!r} in {other[0]} both stand for the tensor {name}.",
                        fix="keep only one of the two in the checkpoint",
                    )
                self._stored[name], self._shapes[name] = (file, key), shape

    @property
    def names(self) -> list[str]:
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        self._locate(name)
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        """Return a tensor in its stored dtype."""
        file, key = self._locate(name)
        with _opened(file) as stored:
            tensor: Tensor = stored.get_tensor(key)
            return tensor

    def read_rows(self, name: str, rows: Tensor) -> Tensor:
        """Return rows of a 2-D tensor by index [count]. Only these rows are read from disk."""
        return self.read(name)[rows].clone()

    def _locate(self, name: str) -> tuple[Path, str]:
        if name not in self._stored:
            raise CheckpointError(f"The checkpoint has no tensor {name}.")
        return self._stored[name]


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is not a complete safetensors file: {error}.", fix="download or copy the checkpoint again"
        ) from None


def _shapes_in(file: Path, keys: set[str] | None) -> dict[str, tuple[int, ...]]:
    with _opened(file) as stored:
        present = set(stored.keys())
        if keys is not None and keys - present:
            raise CheckpointError(
                f"{INDEX} lists {sorted(keys - present)[0]!r} in {file}, but the file does not contain it.",
                fix="download or copy the checkpoint again",
            )
        slices = {key: stored.get_slice(key) for key in sorted(present if keys is None else keys)}
        for key, stored_slice in slices.items():
            dtype = stored_slice.get_dtype()
            if dtype not in _DTYPES and canonical_name(key) is not None:
                raise CheckpointError(
                    f"{file} contains {key!r} in {dtype}; expected one of {', '.join(_DTYPES)}.",
                    fix="pass a checkpoint that is not quantised",
                )
        return {key: tuple(stored_slice.get_shape()) for key, stored_slice in slices.items()}


def _files_and_keys(directory: Path) -> list[tuple[Path, set[str] | None]]:
    """Return the safetensors files, and the keys to use from each (None: all keys)."""
    index = directory / INDEX
    if not index.is_file():
        return [(file, None) for file in sorted(directory.glob("*.safetensors"))]
    try:
        weight_map = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise CheckpointError(f"{index} is corrupt: {error}.", fix="download or copy the checkpoint again") from None
    files: dict[str, set[str]] = {}
    for key, name in weight_map.items():
        check_stands_beside(index, f"the shard {name!r}", name)
        files.setdefault(name, set()).add(key)
    for name in files:
        if not os.path.isfile(directory / name):  # also False for a name that the system does not allow
            raise CheckpointError(f"{index} lists the shard {name}, which is missing.", fix="download or copy it again")
    return [(directory / name, keys) for name, keys in sorted(files.items())]
