"""ONNX Runtime's CUDA provider, bound to our own device memory and stream."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from ...batch_memory import buffer_bytes
from ...bundle import Bundle
from ...errors import PlumeExportError
from ...machine.onnxruntime_module import import_onnxruntime
from ...machine.software import CUDA_PROVIDER
from ...spec import DType, GraphName
from .device import CudaDevice
from .device_memory import CudaBuffers, DeviceBuffer
from .fit import check_graphs_fit

_EXTRA = "gpu"
_DEVICE = ("cuda", 0)
# numpy has no bfloat16; ONNX's element type number stands for it.
_ELEMENT_TYPES: dict[DType, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": 16, "int64": np.int64}


class OnnxRuntimeCuda(CudaBuffers):
    """Backend that runs onnxruntime's CUDA provider. A graph is loaded when its first session is requested.

    The rollout is queued call by call. A CUDA graph is not possible, because ONNX Runtime computes shapes on the host and
    copies them in every run.

    Raises PlumeExportError if there is no driver or GPU, and if ONNX Runtime's CUDA provider is missing or cannot be loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._onnxruntime = _import_onnxruntime()
        manifest = bundle.manifest
        assert manifest.limits is not None
        with ExitStack() as opened:
            device = CudaDevice(_EXTRA)
            opened.callback(device.close)
            buffers = buffer_bytes(manifest.graphs, manifest.model.vision, manifest.limits)
            check_graphs_fit(bundle, buffers, device)
            super().__init__(device, manifest.limits, buffers, is_recording=False)
            self._bundle = bundle
            self._loaded: dict[GraphName, Any] = {}
            self._opened = opened.pop_all()

    def session(self, graph: GraphName) -> "OnnxRuntimeCudaSession":
        if graph not in self._loaded:
            self._loaded[graph] = self._load(graph)
        return OnnxRuntimeCudaSession(self._onnxruntime, self._loaded[graph])

    def close(self) -> None:
        self._loaded.clear()
        self._opened.close()

    def _load(self, graph: GraphName) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = 3
        file = str(self._bundle.checked_graph_file(graph))
        with _as_error(f"cannot load {file}"):  # no fallback: ONNX Runtime would print a message and continue on the CPU
            session = self._onnxruntime.InferenceSession(file, options, providers=[self._provider()], enable_fallback=0)
        self._bundle.check_not_replaced()
        if session.get_providers()[0] != CUDA_PROVIDER:
            raise PlumeExportError(
                f"ONNX Runtime {self._onnxruntime.__version__} could not load its CUDA provider.",
                fix="install the CUDA and cuDNN versions that this onnxruntime-gpu needs; see plume-export doctor",
            )
        return session

    def _provider(self) -> tuple[str, dict[str, str]]:
        """Return the provider and its options: our stream, no rounding of float32 to TF32, no more memory than requested."""
        options = {
            "device_id": "0",
            "user_compute_stream": str(self._device.stream),
            "use_tf32": "0",
            "arena_extend_strategy": "kSameAsRequested",
        }
        return CUDA_PROVIDER, options


class OnnxRuntimeCudaSession:
    """One graph in ONNX Runtime."""

    def __init__(self, onnxruntime: Any, session: Any) -> None:
        self._session = session
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def bind(self, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]) -> "OnnxRuntimeCudaBinding":
        binding = self._session.io_binding()
        for buffers, bind in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name, buffer in buffers.items():
                bind(name, *_DEVICE, _ELEMENT_TYPES[buffer.dtype], list(buffer.shape), buffer.address)
        return OnnxRuntimeCudaBinding(self._session, binding, self._options)

    def close(self) -> None:
        """Do nothing: the backend owns the graph."""


class OnnxRuntimeCudaBinding:
    """Buffers that are bound once; `run` may be called any number of times."""

    def __init__(self, session: Any, binding: Any, options: Any) -> None:
        self._session, self._binding, self._options = session, binding, options

    def run(self) -> None:
        with _as_error("could not run a graph"):
            self._session.run_with_iobinding(self._binding, self._options)


@contextmanager
def _as_error(what: str) -> Iterator[None]:
    """Convert errors of ONNX Runtime, which have no common class."""
    try:
        yield
    except PlumeExportError:
        raise
    except Exception as error:
        raise PlumeExportError(f"ONNX Runtime {what} on the GPU: {error}", fix="plume-export doctor") from error


def _import_onnxruntime() -> Any:
    onnxruntime = import_onnxruntime("onnxruntime-gpu", _EXTRA)
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise PlumeExportError(
            f"This onnxruntime {onnxruntime.__version__} has no CUDA provider.",
            fix=f"pip uninstall onnxruntime, then pip install 'plume-export[{_EXTRA}]'",
        )
    onnxruntime.preload_dlls()  # loads CUDA and cuDNN if they were installed as Python packages
    return onnxruntime
