"""The graph whose speed stands for the machine's computes a product."""

import numpy as np
import onnxruntime
import pytest

from plume_export.bench.limits.matrix_products import cuda_flops_per_s, product_graph
from plume_export.bench.limits.products import ProductKind
from plume_export.errors import PlumeExportError
from plume_export.runtime.onnxruntime_cpu import ask_for_exact_products

SIZE = 16


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_product_is_right(kind: ProductKind) -> None:
    options = onnxruntime.SessionOptions()
    ask_for_exact_products(options)
    session = onnxruntime.InferenceSession(product_graph(kind, SIZE), options, providers=["CPUExecutionProvider"])
    values = np.random.default_rng(0).uniform(-1, 1, (SIZE, SIZE)).astype(np.float32)
    matrix = (values * 127 + 128).astype(np.uint8) if kind == "int8" else values
    (product,) = session.run(None, {"matrix": matrix})
    assert np.abs(product.astype(np.float32) - values @ values.T).max() < {"float32": 1e-5, "float16": 2e-2, "int8": 0.2}[kind]


def test_a_gpu_without_such_products_is_told() -> None:
    with pytest.raises(PlumeExportError, match="int8"):
        cuda_flops_per_s("int8")
    with pytest.raises(PlumeExportError, match="no CUDA provider"):
        cuda_flops_per_s("float16")
