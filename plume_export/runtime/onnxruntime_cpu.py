"""ONNX Runtime on the CPU. Buffers are numpy arrays that the sessions read and write in place."""

import warnings
from collections.abc import Mapping
from typing import Any

from ..bundle import Bundle, Manifest, ProductWeights
from ..errors import BundleError
from ..machine.cores import has_exact_int8_sums
from ..machine.onnxruntime_module import import_onnxruntime
from ..spec import INTEGER_PRECISIONS, GraphName
from .backend import Array, Session
from .grouped_prefill import GroupedPrefill
from .numpy_buffers import NumpyBuffers

_PROVIDER = "CPUExecutionProvider"
# How this CPU's matmuls use weights that are stored in the format for another kind of CPU. Part of a warning.
_COSTS: dict[ProductWeights, str] = {
    "int8": "only after conversion: each graph holds a converted copy in memory",
    "uint8": "more slowly than int8",
}


class OnnxRuntimeCpu(NumpyBuffers):
    """Backend that runs onnxruntime's CPU provider. A graph is loaded when its first session is requested."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        super().__init__()
        if bundle.manifest.precision == "bf16":
            raise BundleError(
                f"{bundle.path} is a bf16 bundle, but ONNX Runtime's CPU provider has no bfloat16 kernels.",
                fix="plume-export build --precision fp16 (or fp32) for a CPU",
            )
        onnxruntime = import_onnxruntime()
        _warn_of_another_processor(bundle)
        self._onnxruntime = onnxruntime
        self._bundle = bundle
        self._options = session_options(bundle.manifest, threads=threads)
        _share_arena(onnxruntime, self._options)
        self._sessions: dict[GraphName, Session] = {}

    def session(self, graph: GraphName) -> Session:
        if graph not in self._sessions:
            file = str(self._bundle.checked_graph_file(graph))
            try:
                loaded = self._onnxruntime.InferenceSession(file, self._options, providers=[_PROVIDER])
            except Exception as error:  # ONNX Runtime's errors have no common class
                raise BundleError(f"{file} cannot be loaded: {error}", fix="free memory, or build the bundle again") from error
            self._bundle.check_not_replaced()
            session = OnnxRuntimeSession(self._onnxruntime, loaded)
            spec = self._bundle.manifest.graphs[graph]
            self._sessions[graph] = GroupedPrefill(session, spec) if graph == "prefill" else session
        return self._sessions[graph]

    def close(self) -> None:
        self._sessions.clear()


def session_options(manifest: Manifest, *, threads: int | None = None) -> Any:
    """Return onnxruntime's options for the graphs of a bundle. If `threads` is None, one thread per core is used."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Memory patterns (plans per input shape) would use memory in addition to the arena's, and are not faster.
    options.enable_mem_pattern = False
    # Each session has its own threads. Spinning threads of the last graph would take the cores that the next graph needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if manifest.backend == "onnx" and manifest.precision in INTEGER_PRECISIONS:
        # Run the graph as exported: graph optimisation would fuse quantised operators into other kernels and widen weights at
        # load.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if manifest.precision == "int8":
        request_exact_int8_sums(options)
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _warn_of_another_processor(bundle: Bundle) -> None:
    found = bundle.manifest.product_weights
    wanted: ProductWeights = "int8" if has_exact_int8_sums() else "uint8"
    if found is not None and found != wanted:
        warnings.warn(
            f"{bundle.path} has {found} weights, which this CPU's matmuls use {_COSTS[found]}. Embeddings are "
            "the same. Fix: plume-export compile PORTABLE_BUNDLE --target cpu, on this machine.",
            stacklevel=5,  # the line that opens an Embedder
        )


def _share_arena(onnxruntime: Any, options: Any) -> None:
    """Let graphs, which run one after another, reuse each other's memory.

    The arena belongs to the process. A session that is loaded takes the arena that was registered last. ONNX Runtime keeps the
    arena after the sessions are closed, until another one replaces it.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": 0}))
    options.add_session_config_entry("session.use_env_allocators", "1")


def request_exact_int8_sums(options: Any) -> None:
    """Make a session compute uint8-by-int8 matmuls exactly, also on machines whose fastest kernels saturate at 16 bits.

    On such a machine the session converts int8 weights to uint8 in memory. A bundle that was compiled on such a machine already
    stores them as uint8.
    """
    if not has_exact_int8_sums():
        options.add_session_config_entry("session.x64quantprecision", "1")


class OnnxRuntimeSession:
    """One graph in ONNX Runtime."""

    def __init__(self, onnxruntime: Any, session: Any) -> None:
        self._onnxruntime = onnxruntime
        self._session = session

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "OnnxRuntimeBinding":
        binding = self._session.io_binding()
        values = []
        for arrays, bind in ((inputs, binding.bind_ortvalue_input), (outputs, binding.bind_ortvalue_output)):
            for name, array in arrays.items():
                value = self._onnxruntime.OrtValue.ortvalue_from_numpy(array)
                bind(name, value)
                values.append((array, value))
        return OnnxRuntimeBinding(self._session, binding, values)

    def close(self) -> None:
        """Do nothing: the backend owns the graph."""


class OnnxRuntimeBinding:
    """Buffers that are bound once; `run` may be called any number of times. Keeps the bound arrays alive."""

    def __init__(self, session: Any, binding: Any, values: list[tuple[Array, Any]]) -> None:
        self._session, self._binding, self._values = session, binding, values

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)
