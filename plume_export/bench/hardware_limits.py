"""Measure the hardware's limits: memory read rate and matmul rate."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, Manifest, open_bundle
from ..errors import MissingExtraError, PlumeExportError
from ..machine.gpu import system_memory
from ..machine.onnxruntime_module import import_onnxruntime
from ..machine.software import CUDA_PROVIDER, ONNXRUNTIME_DOMAIN
from ..runtime.cuda.device import CudaDevice
from ..runtime.onnxruntime_cpu import request_exact_int8_sums
from ..spec import COMPUTE_DTYPE, GraphName, Precision

MatmulKind = Literal["float32", "float16", "bfloat16", "int8"]


def is_on_gpu(manifest: Manifest) -> bool:
    """Return True if a bundle runs on a GPU."""
    return manifest.backend not in ("onnx", "onnxruntime")


def linear_matmuls(manifest: Manifest, graph: GraphName) -> MatmulKind:
    """Return the number format in which a graph's linear layers are computed.

    ONNX Runtime's CPU provider computes float16 graphs in float32, and computes in int8 only in compiled bundles.
    """
    precision = graph_precision(manifest, graph)
    if precision == "int8" and manifest.backend != "onnx":
        return "int8"
    return attention_matmuls(manifest, graph)


def attention_matmuls(manifest: Manifest, graph: GraphName) -> MatmulKind:
    """Return the number format of a graph's attention: that of the graph on a GPU, always float32 on a CPU."""
    kinds: dict[str, MatmulKind] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}
    return kinds[COMPUTE_DTYPE[graph_precision(manifest, graph)]] if is_on_gpu(manifest) else "float32"


def graph_precision(manifest: Manifest, graph: GraphName) -> Precision:
    """Return a graph's own precision. In a quantised bundle, each graph is either quantised or float16."""
    if manifest.quantisation is None:
        return manifest.precision
    return manifest.quantisation.graphs.get(graph, "fp16")


class MachineLimits(msgspec.Struct, frozen=True, tag=True):
    """The best of several runs. Values that are None or missing were not measured; `reasons` maps their names to reasons."""

    read_bytes_per_s: float | None
    flops_per_s: dict[MatmulKind, float]
    reasons: dict[str, str]


def measure_limits(bundle_path: str | os.PathLike[str], *, threads: int | None) -> MachineLimits:
    """Measure memory, and matmuls in every number format that a bundle uses. Takes a few seconds.

    `threads` is for bundles that run on a CPU.
    """
    bundle = open_bundle(bundle_path, verify_hashes=False)
    reasons: dict[str, str] = {}
    flops_per_s: dict[MatmulKind, float] = {}
    read_bytes_per_s = None
    try:
        read_bytes_per_s = _read_bytes_per_s(bundle, threads)
    except MissingExtraError:
        raise
    except PlumeExportError as error:
        reasons["memory"] = error.message
    for kind in _kinds(bundle):
        try:
            flops_per_s[kind] = _flops_per_s(bundle, kind, threads)
        except MissingExtraError:
            raise
        except PlumeExportError as error:
            reasons[kind] = error.message
    return MachineLimits(read_bytes_per_s, flops_per_s, reasons)


def _kinds(bundle: Bundle) -> list[MatmulKind]:
    manifest = bundle.manifest
    kinds = [of(manifest, graph) for graph in manifest.graphs for of in (linear_matmuls, attention_matmuls)]
    return list(dict.fromkeys(kinds))


def _read_bytes_per_s(bundle: Bundle, threads: int | None) -> float:

    if is_on_gpu(bundle.manifest):
        return copied_bytes_per_s()
    assert threads is not None
    return host_read_bytes_per_s(threads)


def _flops_per_s(bundle: Bundle, kind: MatmulKind, threads: int | None) -> float:

    if is_on_gpu(bundle.manifest):
        return cuda_flops_per_s(kind)
    assert threads is not None
    return cpu_flops_per_s(kind, threads)


_CPU_SIZE, _CUDA_SIZE = 1536, 8192


def cpu_flops_per_s(kind: MatmulKind, threads: int) -> float:
    """Return operations per second of a square matmul by a constant matrix, on the CPU. Raises MissingExtraError."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if kind == "int8":
        request_exact_int8_sums(options)
    session = onnxruntime.InferenceSession(product_graph(kind, _CPU_SIZE), options, providers=["CPUExecutionProvider"])
    values = _values(_CPU_SIZE)
    matrix = (values * 127 + 128).astype(np.uint8) if kind == "int8" else values
    return 2 * _CPU_SIZE**3 / best_seconds(lambda: session.run(None, {"matrix": matrix}))


def cuda_flops_per_s(kind: MatmulKind) -> float:
    """Return the same for a GPU, measured with ONNX Runtime's CUDA provider.

    Raises PlumeExportError if the provider is missing, and for int8.
    """
    if kind == "int8":
        raise PlumeExportError("ONNX Runtime's CUDA provider has no int8 matmul.")
    onnxruntime = import_onnxruntime("onnxruntime-gpu", "gpu")
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise PlumeExportError(f"This onnxruntime {onnxruntime.__version__} has no CUDA provider.")
    onnxruntime.preload_dlls()
    graph = product_graph(kind, _CUDA_SIZE)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=[(CUDA_PROVIDER, {"use_tf32": "0"})], enable_fallback=0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("matrix", onnxruntime.OrtValue.ortvalue_from_numpy(_values(_CUDA_SIZE), "cuda", 0))
    binding.bind_output("product", "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return 2 * _CUDA_SIZE**3 / best_seconds(run)


def product_graph(kind: MatmulKind, size: int) -> bytes:
    """Return an ONNX graph with one matmul: `matrix` [size, size] by a constant. Raises MissingExtraError.

    `matrix` is uint8 if `kind` is int8. Otherwise it is float32 and converted to `kind` in the graph, which takes only a
    hundredth of the time.
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
    """Return the inputs of MatMulIntegerToFloat after its matrix: the weight, both scales, and the matrix's zero point."""
    level, zero = np.array(1 / 127, np.float32), np.array(128, np.uint8)
    return {"weight": np.round(weights * 127).astype(np.int8), "level": level, "scale": level, "zero": zero}


def _values(size: int) -> NDArray[np.float32]:
    """Return random values between -1 and 1, because a GPU multiplies zeros faster."""
    return np.random.default_rng(0).uniform(-1, 1, (size, size)).astype(np.float32)


# Limits of the memory that is read: much larger than any cache, but only a small part of the free memory.
_LEAST_BYTES, _MOST_BYTES = 256 << 20, 2 << 30
_SHARE_OF_FREE = 8


def host_read_bytes_per_s(threads: int) -> float:
    """Return the best read rate of several passes over large arrays, one per thread.

    Each pass applies one of two reductions. Both read every byte once, release the GIL, and are limited by the read rate.
    Raises PlumeExportError if too little memory is free.
    """
    memory = system_memory()
    size = min(memory.free_bytes // _SHARE_OF_FREE, _MOST_BYTES)
    if size < _LEAST_BYTES:
        raise PlumeExportError(
            f"{memory.free_bytes >> 20} MiB of memory are free. The measurement uses an eighth of the free memory and needs "
            f"at least {_LEAST_BYTES >> 20} MiB."
        )
    arrays = [np.ones(size // threads // 4, np.float32) for _ in range(threads)]
    integers = [array[: len(array) // 2 * 2].view(np.int64) for array in arrays]
    with ThreadPoolExecutor(threads) as pool:
        passes = (
            lambda: list(pool.map(np.max, arrays)),
            lambda: list(pool.map(np.bitwise_or.reduce, integers)),
        )
        seconds = min(best_seconds(one_pass) for one_pass in passes)
    return sum(array.nbytes for array in arrays) / seconds


def copied_bytes_per_s() -> float:
    """Return a GPU's memory bandwidth, the sum of reads and writes, measured by copies. Raises PlumeExportError."""
    device = CudaDevice("gpu")
    try:
        size = min(device.free_bytes() // _SHARE_OF_FREE, _MOST_BYTES) // 2
        source, target = (device.allocate(size, "measuring its memory") for _ in range(2))

        def copy() -> None:
            device.copy(source, target, size)
            device.wait()

        return 2 * size / best_seconds(copy)
    finally:
        device.close()


_RUNS_AT_LEAST = 5
_SECONDS = 0.5


def best_seconds(work: Callable[[], object]) -> float:
    """Return the shortest of at least five runs in about half a second. One more run before them is a warm-up."""
    work()
    best, end, runs = float("inf"), time.perf_counter() + _SECONDS, 0
    while runs < _RUNS_AT_LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best
