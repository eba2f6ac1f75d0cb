"""How fast ONNX Runtime multiplies large matrices here: a graph of products and nothing else.

The kernels are those of the bundles' linear layers: MatMul, and for int8 on a CPU MatMulIntegerToFloat of com.microsoft.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtraError, PlumeExportError
from ...machine.onnxruntime_module import import_onnxruntime
from ...machine.software import CUDA_PROVIDER, ONNXRUNTIME_DOMAIN
from ...runtime.onnxruntime_cpu import ask_for_exact_products
from .best_of import best_seconds
from .products import ProductKind

_CPU_SIZE, _CUDA_SIZE = 1536, 8192


def cpu_flops_per_s(kind: ProductKind, threads: int) -> float:
    """Return operations per second of a product of square matrices, the second one constant. Raises MissingExtraError."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if kind == "int8":
        ask_for_exact_products(options)
    session = onnxruntime.InferenceSession(product_graph(kind, _CPU_SIZE), options, providers=["CPUExecutionProvider"])
    values = _values(_CPU_SIZE)
    matrix = (values * 127 + 128).astype(np.uint8) if kind == "int8" else values
    return 2 * _CPU_SIZE**3 / best_seconds(lambda: session.run(None, {"matrix": matrix}))


def cuda_flops_per_s(kind: ProductKind) -> float:
    """The same on a GPU by ONNX Runtime's CUDA provider. Raises PlumeExportError where there is none, and for int8."""
    if kind == "int8":
        raise PlumeExportError("ONNX Runtime's CUDA provider has no product of int8 by int8.")
    onnxruntime = import_onnxruntime("onnxruntime-gpu", "gpu")
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise PlumeExportError(f"This onnxruntime {onnxruntime.__version__} has no CUDA provider.")
    onnxruntime.preload_dlls()
    graph = product_graph(kind, _CUDA_SIZE)
    session = onnxruntime.InferenceSession(graph, providers=[(CUDA_PROVIDER, {"use_tf32": "0"})], enable_fallback=0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("matrix", onnxruntime.OrtValue.ortvalue_from_numpy(_values(_CUDA_SIZE), "cuda", 0))
    binding.bind_output("product", "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return 2 * _CUDA_SIZE**3 / best_seconds(run)


def product_graph(kind: ProductKind, size: int) -> bytes:
    """Return an ONNX graph of one product: `matrix` [size, size] by a constant. Raises MissingExtraError.

    `matrix` is uint8 for int8, else float32 and rounded to `kind` in the graph, which takes a hundredth of the time.
    """
    try:
        import onnx_ir as ir
    except ImportError:
        raise MissingExtraError("onnx-ir", "bench") from None
    weights = _values(size).T
    if kind == "int8":
        dtype, constants = ir.DataType.UINT8, _int8_constants(weights)
    else:
        rounded = ir.DataType[{"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}[kind]]
        dtype, constants = ir.DataType.FLOAT, {"weight": weights.astype(rounded.numpy())}
    initializers = [ir.Value(name=name, const_value=ir.tensor(constant)) for name, constant in constants.items()]
    matrix = ir.Value(name="matrix", shape=ir.Shape((size, size)), type=ir.TensorType(dtype))
    if kind == "int8":
        nodes = [ir.node("MatMulIntegerToFloat", [matrix, *initializers], domain=ONNXRUNTIME_DOMAIN)]
    else:
        cast = ir.node("Cast", [matrix], {"to": rounded.value})
        nodes = [cast, ir.node("MatMul", [cast.outputs[0], *initializers])]
    product = nodes[-1].outputs[0]
    product.name, product.shape = "product", matrix.shape
    product.type = ir.TensorType(ir.DataType.FLOAT if kind == "int8" else rounded)
    graph = ir.Graph([matrix], [product], nodes=nodes, initializers=initializers, opset_imports={"": 20, ONNXRUNTIME_DOMAIN: 1})
    message: bytes = ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString()
    return message


def _int8_constants(weights: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The inputs of MatMulIntegerToFloat behind its matrix: weight, both scales, the matrix's zero point."""
    level, zero = np.array(1 / 127, np.float32), np.array(128, np.uint8)
    return {"weight": np.round(weights * 127).astype(np.int8), "level": level, "scale": level, "zero": zero}


def _values(size: int) -> NDArray[np.float32]:
    """Values between -1 and 1, not zeros: a GPU multiplies those faster."""
    return np.random.default_rng(0).uniform(-1, 1, (size, size)).astype(np.float32)
