"""A backend that rounds after every operator: onnx's reference evaluator. ONNX Runtime's CPU computes fp16 in fp32."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401 - numpy learns bfloat16
import numpy as np
from onnx.reference import ReferenceEvaluator

from plume_export.bundle import Bundle
from plume_export.spec import GraphName


class RoundingBackend:
    """The backend protocol over onnx.reference.ReferenceEvaluator, for small models."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._sessions: dict[GraphName, RoundingSession] = {}

    def session(self, graph: GraphName) -> "RoundingSession":
        if graph not in self._sessions:
            self._sessions[graph] = RoundingSession(ReferenceEvaluator(str(self._bundle.graph_file(graph))))
        return self._sessions[graph]

    def zeros(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)

    def upload(self, array: np.ndarray, dtype: str) -> np.ndarray:
        return array.astype(dtype)

    def download(self, buffer: np.ndarray) -> np.ndarray:
        return buffer.astype(np.float32)

    def copy(self, source: np.ndarray, target: np.ndarray) -> None:
        target[...] = source

    def copy_to_slot(self, source: np.ndarray, target: np.ndarray, slot: int) -> None:
        target[slot] = source

    def set_step(self, target: np.ndarray, step: int) -> None:
        target[...] = step

    def concatenate(self, buffers: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(buffers)

    def close(self) -> None:
        self._sessions.clear()


class RoundingSession:
    def __init__(self, evaluator: Any) -> None:
        self._evaluator = evaluator

    def bind(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> "RoundingBinding":
        return RoundingBinding(self._evaluator, inputs, outputs)


class RoundingBinding:
    def __init__(self, evaluator: Any, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        self._evaluator, self._inputs, self._outputs = evaluator, inputs, outputs

    def run(self) -> None:
        results = self._evaluator.run(list(self._outputs), dict(self._inputs))
        for (name, target), value in zip(self._outputs.items(), results, strict=True):
            assert value.dtype == target.dtype, (name, value.dtype, target.dtype)
            target[...] = value
