"""TensorRT's runtime API over an emulated CUDA device: an engine is the path of an ONNX file, which ONNX Runtime runs in place.

It is as strict as the documented API: shapes outside the profile are refused, every tensor needs its aligned address, scratch
memory must be given, and what a context does only in the first run after new shapes cannot be recorded.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from plume_export.bundle import EngineEntry
from plume_export.spec import GraphSpec

from .emulated_cuda import EmulatedCuda

VERSION = "99.1"
SCRATCH_BYTES = 1000
_DTYPES = {"float32": np.float32, "float16": np.float16, "int64": np.int64}


class ILogger:
    """Base class of a logger, as TensorRT's."""


class EmulatedTensorRt:
    """Stands for the module `tensorrt`, or for `tensorrt_rtx` with `is_rtx`."""

    __version__ = VERSION
    ILogger = ILogger
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager", LAZY="lazy")

    def __init__(self, cuda: EmulatedCuda, graphs: dict[str, GraphSpec], entries: dict[str, EngineEntry]) -> None:
        self.cuda, self.graphs, self.entries = cuda, graphs, entries
        self.contexts = 0
        self.graphs_in_use: set[str] = set()
        self.scratch_bytes = SCRATCH_BYTES
        self.is_still_compiling = self.has_no_context = False

    def Runtime(self, log: Any) -> "EmulatedRuntime":  # noqa: N802
        return EmulatedRuntime(self, log)


class EmulatedRuntime:
    def __init__(self, trt: EmulatedTensorRt, log: Any) -> None:
        self._trt, self._log = trt, log

    def deserialize_cuda_engine(self, serialized: memoryview) -> "EmulatedEngine | None":
        graph, _, path = bytes(serialized).decode(errors="replace").partition("\n")
        if graph not in self._trt.graphs:
            self._log.log("Severity.ERROR", "Magic tag does not match")
            return None
        return EmulatedEngine(self._trt, self._log, graph, path)


class EmulatedEngine:
    """Its weights are a block of the device, freed with the engine."""

    def __init__(self, trt: EmulatedTensorRt, log: Any, graph: str, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.trt, self.log, self.graph = trt, log, graph
        self.device_memory_size_v2 = trt.scratch_bytes
        self._weights = trt.cuda.cudaMalloc(512)[1]

    def __del__(self) -> None:
        self.trt.cuda.cudaFree(self._weights)

    def create_runtime_config(self) -> "EmulatedRuntimeConfig":
        return EmulatedRuntimeConfig()

    def create_execution_context(self, how: Any) -> "EmulatedContext | None":
        if self.trt.has_no_context:
            self.log.log("Severity.ERROR", "out of memory for the context")
            return None
        strategy = how.strategy if isinstance(how, EmulatedRuntimeConfig) else how
        assert strategy == "user managed"
        context = EmulatedContext(self)
        self.trt.contexts += 1
        self.trt.graphs_in_use.add(self.graph)
        return context


class EmulatedRuntimeConfig:
    """TensorRT-RTX's. The cache holds the number of contexts that it was given to."""

    strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> "EmulatedRuntimeCache":
        return EmulatedRuntimeCache()

    def set_runtime_cache(self, cache: "EmulatedRuntimeCache") -> bool:
        cache.uses += 1
        return True


class EmulatedRuntimeCache:
    uses = 0

    def serialize(self) -> bytes:
        return str(self.uses).encode()

    def deserialize(self, data: bytes) -> bool:
        self.uses = int(data)
        return True


class EmulatedContext:
    def __init__(self, engine: EmulatedEngine) -> None:
        self._engine, self._trt, self._cuda = engine, engine.trt, engine.trt.cuda
        spec = engine.trt.graphs[engine.graph]
        weights = {tensor.name: tensor for tensor in engine.session.get_inputs()}
        self._inputs = {tensor.name: (tensor.axes, tensor.dtype) for tensor in spec.inputs}
        for name in engine.trt.entries[engine.graph].shared_weights:
            onnx_type = {"tensor(float)": "float32", "tensor(float16)": "float16"}[weights[name].type]
            self._inputs[name] = (tuple(weights[name].shape), onnx_type)
        self._outputs = {tensor.name: (tensor.axes, tensor.dtype) for tensor in spec.outputs}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch_size = 0
        self._has_new_shapes = True
        self._changes = 0

    def set_device_memory(self, address: int, size: int) -> None:
        self._cuda.check(address, size)
        assert address % 256 == 0
        self._changes += 1
        self._scratch_size = size

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        profile = self._trt.entries[self._engine.graph].profile.get(name)
        if profile is not None and not all(a <= b <= c for a, b, c in zip(profile[0], shape, profile[2], strict=True)):
            self._engine.log.log("Severity.ERROR", f"{name} {shape} is outside of the profile")
            return False
        self._changes += 1
        self._has_new_shapes |= self._shapes.get(name) != shape
        self._shapes[name] = shape
        return name in self._inputs

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._changes += 1
        self._addresses[name] = address
        return address % 256 == 0 and (name in self._inputs or name in self._outputs)

    def infer_shapes(self) -> list[str]:
        return [name for name in self._inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes: dict[str, int] = {}
        for input_name, (axes, _) in self._inputs.items():
            sizes |= {axis: size for axis, size in zip(axes, self._shapes[input_name], strict=True) if isinstance(axis, str)}
        if "frames" in sizes:
            sizes["visual_tokens"] = sizes["frames"] * sizes["patches"] // 4
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self._outputs[name][0])

    def is_stream_capturable(self, stream: int) -> bool:
        return not self._trt.is_still_compiling

    def execute_async_v3(self, stream: int) -> bool:
        self._cuda.check_stream(stream)
        if self._scratch_size < self._trt.scratch_bytes or (self._cuda.recording is not None and self._has_new_shapes):
            self._engine.log.log("Severity.ERROR", "no scratch memory, or recorded before it ran")
            return False
        self._has_new_shapes = False
        self._cuda.enqueue(self._run_as_set_now())
        return True

    def _run_as_set_now(self) -> Callable[[], None]:
        binding = self._engine.session.io_binding()
        tensors = {name: (self._shapes[name], dtype) for name, (_, dtype) in self._inputs.items()}
        tensors |= {name: (self.get_tensor_shape(name), dtype) for name, (_, dtype) in self._outputs.items()}
        for name, (shape, dtype) in tensors.items():
            address = self._addresses[name]
            self._cuda.check(address, int(np.prod(shape)) * np.dtype(_DTYPES[dtype]).itemsize)
            bind = binding.bind_input if name in self._inputs else binding.bind_output
            bind(name, "cpu", 0, _DTYPES[dtype], list(shape), address)

        changes = None if self._cuda.recording is None else self._changes

        def run() -> None:
            assert changes in (None, self._changes), "the context of a recorded run was changed"
            self._engine.session.run_with_iobinding(binding)

        return run
