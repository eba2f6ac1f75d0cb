"""Small graphs for tests of passes: written as ONNX text, and run before and after a pass."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from plume_export.runtime.onnxruntime_cpu import request_exact_int8_sums

Arrays = Mapping[str, NDArray[Any]]


def graph_from_text(text: str) -> ir.Model:
    return ir.from_onnx_text('<ir_version: 9, opset_import: ["" : 20, "com.microsoft" : 1]>' + text)


def values(array: NDArray[Any]) -> str:
    """Return the data of an initializer as text."""
    return "{" + ", ".join(map(str, array.ravel().tolist())) + "}"


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def run(model: ir.Model, inputs: Arrays) -> list[NDArray[Any]]:
    """Return the outputs of a graph. Without integer matmuls it is computed as it is written."""
    options = onnxruntime.SessionOptions()
    if "MatMulIntegerToFloat" in operators(model):
        request_exact_int8_sums(options)  # an optimisation
    else:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, dict(inputs))
    return outputs


def check_same_results(before: list[NDArray[Any]], after: list[NDArray[Any]], atol: float = 1e-6) -> None:
    for expected, actual in zip(before, after, strict=True):
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
