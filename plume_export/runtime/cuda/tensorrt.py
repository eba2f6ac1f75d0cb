"""Backend for TensorRT and TensorRT-RTX engines, whose APIs differ in little more than the module name."""

import mmap
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from ...batch_memory import buffer_bytes
from ...bundle import Bundle
from ...errors import BundleError, PlumeExportError
from ...machine.tensorrt_log import log_of_process, reasons_in
from ...machine.tensorrt_variant import Variant, extra_of, import_runtime
from ...spec import GraphName
from .device import CudaDevice
from .device_memory import CudaBuffers, DeviceBuffer, SharedWeights
from .fit import check_device, check_engines_fit, check_version, rebuild_command, scratch_bytes
from .kernel_cache import KernelCache


class TensorRt(CudaBuffers):
    """Backend that runs a bundle of TensorRT engines. An engine is loaded when its first session is requested.

    Engines run one after another and share one block of scratch memory. With shared weights, they also share one copy of the
    weights. With `is_recording=False` the rollout is queued call by call, never as a CUDA graph.

    Raises BundleError for engines of another TensorRT version or GPU. Raises PlumeExportError if there is no driver or GPU, and
    if the bundle does not fit in the device's memory.
    """

    def __init__(self, bundle: Bundle, *, is_recording: bool = True) -> None:
        manifest = bundle.manifest
        assert manifest.engines is not None
        assert manifest.backend in ("tensorrt", "tensorrt-rtx")
        engines = manifest.engines
        variant = import_runtime(manifest.backend)
        check_version(bundle, engines, variant)
        with ExitStack() as opened:
            device = CudaDevice(extra_of(variant.name))
            opened.callback(device.close)
            check_device(bundle, engines, device)
            buffers = buffer_bytes(manifest.graphs, manifest.model.vision, engines.recipe.limits)
            check_engines_fit(bundle, engines, buffers, device)
            super().__init__(device, engines.recipe.limits, buffers, is_recording=is_recording)
            self._bundle, self._engines, self._variant = bundle, engines, variant
            self._log = log_of_process(variant)
            self._runtime: Any = self._made("runtime", lambda: variant.trt.Runtime(self._log))
            self._weights = SharedWeights(bundle, device)
            self._scratch_size = scratch_bytes(bundle, engines)
            self._scratch = device.allocate(self._scratch_size, "the engines' scratch memory")
            self._loaded: dict[GraphName, LoadedEngine] = {}
            self._recorded: list[TensorRtSession] = []
            opened.callback(self._free_engines)
            self._opened = opened.pop_all()

    def session(self, graph: GraphName) -> "TensorRtSession":
        if graph not in self._loaded:
            self._loaded[graph] = self._load(graph)
        loaded = self._loaded[graph]
        context = self._made(f"context of {graph}", loaded.new_context)
        session = TensorRtSession(graph, context, loaded.weights, self._device, self._log, self._recorded)
        if graph == "latent_step":
            self._recorded.append(session)
        return session

    def is_recordable(self) -> bool:
        return super().is_recordable() and all(session.is_recordable() for session in self._recorded)

    def close(self) -> None:
        """Free the engines, then the device memory that they use. Sessions must be closed first."""
        self._opened.close()

    def _free_engines(self) -> None:
        self._device.wait()
        for loaded in self._loaded.values():
            loaded.close()
        self._loaded.clear()
        self._recorded.clear()
        self._runtime = None

    def _load(self, graph: GraphName) -> "LoadedEngine":
        """Deserialise an engine from its memory-mapped file, so that the host needs no copy."""
        file = self._bundle.checked_graph_file(graph)
        self._log.lines.clear()
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            engine = self._runtime.deserialize_cuda_engine(memoryview(mapped))
        if engine is None:
            raise BundleError(
                f"{self._variant.name} {self._variant.version} cannot load {file} on {self._device.name}, compute capability "
                f"{self._device.compute_capability}: {reasons_in(self._log.lines)}.",
                fix=rebuild_command(self._bundle),
            )
        kernel_cache = KernelCache(self._variant, self._bundle, graph)
        weights = {name: self._weights.load(name) for name in self._engines.graphs[graph].shared_weights}
        self._bundle.check_not_replaced()
        return LoadedEngine(self._variant, engine, kernel_cache, weights, *self._scratch_for(int(engine.device_memory_size_v2)))

    def _scratch_for(self, size: int) -> tuple[int, int]:
        """Return the common scratch memory, enlarged if an engine needs more than its builder reported."""
        if size > self._scratch_size:
            self._scratch_size = size
            self._scratch = self._device.allocate(size, "the engines' scratch memory")
        return self._scratch, self._scratch_size

    def _made(self, what: str, make: Callable[[], Any]) -> Any:
        """Return the object that `make` creates. Raise PlumeExportError if it returns None or raises TypeError, which is how
        TensorRT reports failure.
        """
        self._log.lines.clear()
        try:
            made = make()
        except TypeError:
            made = None
        if made is None:
            raise PlumeExportError(
                f"{self._variant.name} {self._variant.version} could not create the {what} on {self._device.name}: "
                f"{reasons_in(self._log.lines)}.",
                fix="plume-export doctor",
            )
        return made


class LoadedEngine:
    """One deserialised engine, its shared weights, and the scratch memory of its contexts."""

    def __init__(
        self,
        variant: Variant,
        engine: Any,
        kernel_cache: KernelCache,
        weights: Mapping[str, DeviceBuffer],
        scratch: int,
        scratch_size: int,
    ) -> None:
        self.kernel_cache, self.weights = kernel_cache, weights
        self._trt, self._engine = variant.trt, engine
        self._scratch, self._scratch_size = scratch, scratch_size

    def new_context(self) -> Any:
        """Return an execution context that uses the common scratch memory; None if the engine cannot create one."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.kernel_cache.is_used:
            config = self._engine.create_runtime_config()
            if config is None:
                return None
            config.set_execution_context_allocation_strategy(strategy)
            self.kernel_cache.set_up(config)
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context(strategy)
        if context is not None:
            context.set_device_memory(self._scratch, self._scratch_size)
        return context

    def close(self) -> None:
        """Save the compiled kernels and free the engine. Its contexts must be freed first."""
        self.kernel_cache.save()
        self._engine = None


class TensorRtSession:
    """One execution context of an engine. It keeps the shapes and addresses of the last binding that ran."""

    def __init__(
        self,
        graph: GraphName,
        context: Any,
        weights: Mapping[str, DeviceBuffer],
        device: CudaDevice,
        log: Any,
        recorded: "list[TensorRtSession]",
    ) -> None:
        self._graph, self._context, self._weights = graph, context, weights
        self._device, self._log, self._recorded = device, log, recorded
        self._current: TensorRtBinding | None = None

    def bind(self, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]) -> "TensorRtBinding":
        return TensorRtBinding(self, {**inputs, **self._weights}, outputs)

    def run(self, binding: "TensorRtBinding") -> None:
        """Queue one run."""
        if self._current is not binding:
            self._current = None  # until every shape and address is set
            self._take_up(binding)
            self._current = binding
        if not self._context.execute_async_v3(self._device.stream):
            raise self._failed("could not run")

    def is_recordable(self) -> bool:
        """Return True if work can be recorded now.

        TensorRT-RTX returns False while kernels are compiling; TensorRT is always ready.
        """
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or self._current is None or bool(ask(self._device.stream))

    def close(self) -> None:
        """Free the context. CUDA graphs that use it must be freed first."""
        self._device.wait()
        self._context = self._current = None
        if self in self._recorded:
            self._recorded.remove(self)

    def _take_up(self, binding: "TensorRtBinding") -> None:
        self._log.lines.clear()
        for name, buffer in binding.inputs.items():
            if not self._context.set_input_shape(name, buffer.shape):
                raise self._failed(f"does not accept the shape {list(buffer.shape)} for {name}")
        for name, buffer in (*binding.inputs.items(), *binding.outputs.items()):
            if not self._context.set_tensor_address(name, buffer.address):
                raise self._failed(f"does not accept the buffer address of {name}")
        try:
            missing = self._context.infer_shapes()
        except RuntimeError as error:
            raise self._failed(f"cannot infer its shapes ({error})") from None
        if missing:
            raise self._failed(f"has no shape or address for {', '.join(missing)}")
        for name, buffer in binding.outputs.items():
            computed = tuple(self._context.get_tensor_shape(name))
            if computed != buffer.shape:
                raise self._failed(f"computes {name} {list(computed)} instead of {list(buffer.shape)}")

    def _failed(self, what: str) -> PlumeExportError:
        return PlumeExportError(
            f"The engine {self._graph} {what}: {reasons_in(self._log.lines)}.",
            fix="file an issue and attach the output of `plume-export selftest`",
        )


class TensorRtBinding:
    """Buffers of one session; `run` may be called any number of times."""

    def __init__(
        self, session: TensorRtSession, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]
    ) -> None:
        self._session, self.inputs, self.outputs = session, inputs, outputs

    def run(self) -> None:
        self._session.run(self)
