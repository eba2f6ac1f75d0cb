"""PLUME in plain PyTorch, on top of transformers' Qwen2-VL. `parity` compares bundles with it."""

from .model import Reference
from .processor import ReferenceInputs, ReferenceProcessor

__all__ = ["Reference", "ReferenceInputs", "ReferenceProcessor"]
