"""What is measured of a machine, and what is said where it cannot be."""

import numpy as np
import onnxruntime
import pytest

from plume_export.bench.hardware_limits import (
    MatmulKind,
    attention_matmuls,
    copied_bytes_per_s,
    cuda_flops_per_s,
    host_read_bytes_per_s,
    linear_matmuls,
    measure_limits,
    product_graph,
)
from plume_export.bundle import Bundle
from plume_export.errors import PlumeExportError
from plume_export.machine.gpu import DeviceMemory
from plume_export.runtime.onnxruntime_cpu import request_exact_int8_sums
from plume_export.spec import GRAPH_NAMES
from tests.bench.manifests import NO_PROMISE, changed
from tests.runtime.emulated_cuda import EmulatedCuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    emulated = EmulatedCuda(memory_bytes=1 << 24)
    monkeypatch.setattr("plume_export.runtime.cuda.device.import_cudart", lambda extra: emulated)
    return emulated


@pytest.mark.slow
def test_a_cpu_has_both_limits(tiny_cpu: Bundle) -> None:
    limits = measure_limits(tiny_cpu.path, threads=1)
    assert limits.read_bytes_per_s is not None
    assert limits.read_bytes_per_s > 0
    assert set(limits.flops_per_s) == {"float32"}
    assert limits.reasons == {}


def test_a_gpu_s_copies_are_waited_for_and_freed(cuda: EmulatedCuda) -> None:
    assert copied_bytes_per_s() > 0
    assert cuda.waits > 5
    assert cuda.used_bytes == 0


def test_memory_that_is_short_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.bench.hardware_limits.system_memory", lambda: DeviceMemory(1 << 30, 1 << 30))
    with pytest.raises(PlumeExportError, match="1024 MiB of memory are free"):
        host_read_bytes_per_s(1)


SIZE = 16


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_product_is_right(kind: MatmulKind) -> None:
    options = onnxruntime.SessionOptions()
    request_exact_int8_sums(options)
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


def test_products_follow_graph_and_backend(tiny_cpu: Bundle) -> None:
    cpu = changed(tiny_cpu, precision="fp16")
    assert linear_matmuls(cpu, "prefill") == "float32"  # ONNX Runtime widens it
    gpu = changed(tiny_cpu, precision="int8", quantisation=NO_PROMISE, backend="tensorrt")
    assert [linear_matmuls(gpu, graph) for graph in GRAPH_NAMES] == ["float16", "int8", "float16"]
    assert attention_matmuls(gpu, "prefill") == "float16"
    portable = changed(tiny_cpu, precision="int8", quantisation=NO_PROMISE, backend="onnx")
    assert linear_matmuls(portable, "prefill") == "float32"
