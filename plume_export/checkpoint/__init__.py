"""Read a checkpoint's dimensions and its tensors by name; also write random checkpoints. Independent of the graphs."""

from .allocator import return_large_blocks_to_the_system
from .config import check_tensors, model_spec_from_checkpoint
from .examined import ExaminedTensors
from .origin import Checkpoint, checkpoint_sha256, origin_of
from .random import write_random_checkpoint
from .source import resolve_checkpoint
from .tensors import CheckpointTensors
from .tokenizer import check_forced_texts, tokenizer_json_from_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointTensors",
    "ExaminedTensors",
    "check_forced_texts",
    "check_tensors",
    "checkpoint_sha256",
    "model_spec_from_checkpoint",
    "origin_of",
    "resolve_checkpoint",
    "return_large_blocks_to_the_system",
    "tokenizer_json_from_checkpoint",
    "write_random_checkpoint",
]
