"""TensorRT or TensorRT-RTX: which Python module, which version, and what it can build here."""

import platform
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

from ..errors import MissingExtraError, PlumeExportError
from .gpu import find_gpus, find_jetson

FlavourName = Literal["tensorrt", "tensorrt-rtx"]
FLAVOUR_NAMES: tuple[FlavourName, ...] = get_args(FlavourName)
# What an engine is built for where it runs on more than one kind of GPU.
PORTABLE = "portable"
_FULL_PACKAGE = "install the full package (on Jetson: apt install python3-libnvinfer libnvonnxparsers10)"
_JETPACKS_OWN = "TensorRT comes with JetPack: apt install python3-libnvinfer, and python3 -m venv --system-site-packages .venv"
_MODULES: dict[FlavourName, tuple[str, str]] = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "rtx")}


@dataclass(frozen=True)
class Flavour:
    """An imported flavour; `trt` is its Python module."""

    name: FlavourName
    trt: Any

    @property
    def version(self) -> str:
        return str(self.trt.__version__)


def device_of(flavour: Flavour) -> str:
    """Return what the engines built here run on: any RTX GPU, or the one of this machine by name and compute capability."""
    if flavour.name == "tensorrt-rtx":
        return PORTABLE
    named = cuda_device()
    gpus = find_gpus() if named is None else []
    return named or (f"{gpus[0].name} {gpus[0].compute_capability}" if gpus else platform.machine())


def cuda_device() -> str | None:
    """Return name and compute capability of CUDA's first device; None without cuda-bindings, driver or device."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    code, properties = runtime.cudaGetDeviceProperties(0)
    if code != runtime.cudaError_t.cudaSuccess:
        return None
    return device_title(properties)


def device_title(properties: Any) -> str:
    """Return name and compute capability of a device, of CUDA's properties."""
    return f"{properties.name.decode(errors='replace').rstrip(chr(0))} {properties.major}.{properties.minor}"


def import_flavour(name: FlavourName) -> Flavour:
    """Import a flavour that builds engines. Raises as `import_runtime` does, and PlumeExportError without the ONNX parser."""
    flavour = import_runtime(name)
    if not hasattr(flavour.trt, "OnnxParser"):
        module, _ = _MODULES[name]
        raise PlumeExportError(f"This {module} {flavour.version} comes without the ONNX parser.", fix=_FULL_PACKAGE)
    return flavour


def extra_of(name: FlavourName) -> str:
    """Return the extra that brings what a flavour needs to run here."""
    jetson = find_jetson() if name == "tensorrt" else None
    return _MODULES[name][1] if jetson is None else f"jetson{jetson.jetpack or 6}"


def import_runtime(name: FlavourName) -> Flavour:
    """Import a flavour that runs engines. Raises MissingExtraError, and PlumeExportError where its libraries do not load."""
    module, extra = _MODULES[name]
    if find_spec(module) is None:
        if name == "tensorrt" and find_jetson() is not None:
            raise PlumeExportError(f"The Python package {module!r} is not found.", fix=_JETPACKS_OWN)
        raise MissingExtraError(module, extra)
    try:
        return Flavour(name, import_module(module))
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: what NVIDIA's own loader raises
        raise PlumeExportError(
            f"The Python package {module!r} is installed and cannot be imported: {error}.",
            fix=f"pip install --force-reinstall 'plume-export[{extra}]' (on Jetson: install JetPack's TensorRT again)",
        ) from None
