"""Open the backend that a bundle was compiled for."""

from ..bundle import Bundle
from ..errors import PlumeExportError
from .backend import Backend


def open_backend(bundle: Bundle, *, threads: int | None = None) -> Backend:
    """Open the backend of a bundle. Raises PlumeExportError if this machine cannot run it."""
    backend = bundle.manifest.backend
    if backend in ("onnx", "onnxruntime"):
        from .onnxruntime_cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(bundle, threads=threads)
    if threads is not None:
        raise PlumeExportError(f"threads is {threads}, but {bundle.path} runs on a GPU.", fix="omit --threads")
    if backend == "onnxruntime-cuda":
        from .cuda.onnxruntime_cuda import OnnxRuntimeCuda

        return OnnxRuntimeCuda(bundle)
    from .cuda.tensorrt import TensorRt

    return TensorRt(bundle)
