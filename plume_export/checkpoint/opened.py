"""A checkpoint that was found, read and checked."""

from dataclasses import dataclass
from pathlib import Path

from ..spec import ModelSpec
from .examined import ExaminedTensors


@dataclass(frozen=True)
class Checkpoint:
    """Where it is, under which name the user knows it, its tensors and its dimensions."""

    directory: Path
    name: str
    tensors: ExaminedTensors
    model: ModelSpec
