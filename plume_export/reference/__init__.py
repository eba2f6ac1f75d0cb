"""PLUME in plain PyTorch over transformers' Qwen2-VL: the oracle that parity measures against."""

from .model import Reference
from .processor import ReferenceInputs, ReferenceProcessor

__all__ = ["Reference", "ReferenceInputs", "ReferenceProcessor"]
