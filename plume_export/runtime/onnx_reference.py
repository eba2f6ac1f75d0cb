"""onnx's reference evaluator: every operator rounds its result to the graph's dtype. Slow; used to assess 16-bit precision.

ONNX Runtime's CPU provider computes float16 graphs in float32 and has no bfloat16, so it shows neither rounding nor overflow.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BundleError, MissingExtraError
from ..spec import GraphName
from .backend import Array
from .numpy_buffers import NumpyBuffers


class OnnxReference(NumpyBuffers):
    """Backend that runs onnx.reference.ReferenceEvaluator. Only for portable bundles: fused operators are not in ONNX."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        if bundle.manifest.backend != "onnx":
            raise BundleError(
                f"{bundle.path} is compiled for {bundle.manifest.backend}; rounding after every operator needs a "
                "portable bundle.",
                fix="plume-export export --precision " + bundle.manifest.precision,
            )
        try:
            import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
            from onnx.reference import ReferenceEvaluator
        except ImportError:
            raise MissingExtraError("onnx", "compile") from None
        self._evaluator = ReferenceEvaluator
        self._bundle = bundle
        self._sessions: dict[GraphName, OnnxReferenceSession] = {}

    def session(self, graph: GraphName) -> "OnnxReferenceSession":
        if graph not in self._sessions:
            file = self._bundle.checked_graph_file(graph)
            try:
                session = OnnxReferenceSession(self._evaluator(str(file)))
            except Exception as error:  # protobuf, onnx and numpy have no common error class
                raise BundleError(f"{file} cannot be loaded: {error}", fix="build the bundle again") from error
            self._bundle.check_not_replaced()
            self._sessions[graph] = session
        return self._sessions[graph]

    def close(self) -> None:
        self._sessions.clear()


class OnnxReferenceSession:
    """One graph in the reference evaluator."""

    def __init__(self, evaluator: Any) -> None:
        self._evaluator = evaluator

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "OnnxReferenceBinding":
        return OnnxReferenceBinding(self._evaluator, inputs, outputs)

    def close(self) -> None:
        """Do nothing: the backend owns the graph."""


class OnnxReferenceBinding:
    """Inputs and outputs of one graph; `run` copies the results into the outputs."""

    def __init__(self, evaluator: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._evaluator, self._inputs, self._outputs = evaluator, inputs, outputs

    def run(self) -> None:
        with np.errstate(all="ignore"):  # no warnings: overflow is visible in the results
            results = self._evaluator.run(list(self._outputs), dict(self._inputs))
        for (name, target), value in zip(self._outputs.items(), results, strict=True):
            if (value.dtype, value.shape) != (target.dtype, target.shape):
                raise BundleError(
                    f"A graph computes {name} as {value.dtype} {list(value.shape)}; expected {target.dtype} "
                    f"{list(target.shape)} from the manifest.",
                    fix="build the bundle again",
                )
            target[...] = value
