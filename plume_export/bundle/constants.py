"""The constant embeddings of a bundle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BundleError
from ..npz_file import read_npz
from ..spec import ModelSpec
from ..stages import FloatArray
from .manifest import CONSTANTS


@dataclass(frozen=True)
class Constants:
    """Embeddings that are the same for every input."""

    blank_visual_embeddings: FloatArray  # [visual_tokens, hidden]
    suffix_embeddings: FloatArray  # [suffix_tokens, hidden]


def read_constants(directory: Path, model: ModelSpec) -> Constants:
    """Read the constants in a bundle's directory. Raises BundleError if they are missing, corrupt or of another model."""
    file, hidden = directory / CONSTANTS, model.decoder.hidden
    names = tuple(Constants.__dataclass_fields__)
    try:
        arrays = read_npz(file)
        for name in names:
            if name not in arrays:
                raise ValueError(f"{name} is missing")
            if arrays[name].ndim != 2 or arrays[name].shape[1] != hidden or not len(arrays[name]):
                raise ValueError(f"{name} has the shape {list(arrays[name].shape)}; expected rows of {hidden}")
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} has values that are not finite")
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be used: {error}.", fix="build the bundle again") from error
    return Constants(*(arrays[name].astype(np.float32) for name in names))
