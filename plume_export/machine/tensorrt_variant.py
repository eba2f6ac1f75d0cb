"""TensorRT or TensorRT-RTX: its Python module, its version, and the devices that its engines run on."""

import platform
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

from ..errors import MissingExtraError, PlumeExportError
from .gpu import find_gpus, find_jetson

VariantName = Literal["tensorrt", "tensorrt-rtx"]
VARIANT_NAMES: tuple[VariantName, ...] = get_args(VariantName)
# The device of an engine that runs on more than one kind of GPU.
PORTABLE = "portable"
_FULL_PACKAGE = "install the full package (on Jetson: apt install python3-libnvinfer libnvonnxparsers10)"
_JETPACKS_OWN = "TensorRT comes with JetPack: apt install python3-libnvinfer, and python3 -m venv --system-site-packages .venv"
_MODULES: dict[VariantName, tuple[str, str]] = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "rtx")}


@dataclass(frozen=True)
class Variant:
    """An imported TensorRT variant (TensorRT or TensorRT-RTX); `trt` is its Python module."""

    name: VariantName
    trt: Any

    @property
    def version(self) -> str:
        return str(self.trt.__version__)


def device_of(variant: Variant) -> str:
    """Return the device that engines built here run on: any RTX GPU, or this machine's GPU by name and compute capability."""
    if variant.name == "tensorrt-rtx":
        return PORTABLE
    named = cuda_device()
    gpus = find_gpus() if named is None else []
    return named or (f"{gpus[0].name} {gpus[0].compute_capability}" if gpus else platform.machine())


def cuda_device() -> str | None:
    """Return name and compute capability of the first CUDA device; None without cuda-bindings, driver or device."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    code, properties = runtime.cudaGetDeviceProperties(0)
    if code != runtime.cudaError_t.cudaSuccess:
        return None
    return device_title(properties)


def device_title(properties: Any) -> str:
    """Return name and compute capability of a device from its CUDA properties."""
    return f"{properties.name.decode(errors='replace').rstrip(chr(0))} {properties.major}.{properties.minor}"


def is_variant_installed(name: VariantName) -> bool:
    """Return True if the package of a variant is installed, whether it works or not."""
    module, _ = _MODULES[name]
    return find_spec(module) is not None


def import_variant(name: VariantName) -> Variant:
    """Import a variant for building engines. Raises the errors of `import_runtime`, and PlumeExportError without a parser."""
    variant = import_runtime(name)
    if not hasattr(variant.trt, "OnnxParser"):
        module, _ = _MODULES[name]
        raise PlumeExportError(f"{module} {variant.version} was installed without the ONNX parser.", fix=_FULL_PACKAGE)
    return variant


def extra_of(name: VariantName) -> str:
    """Return the extra that installs what a variant needs to run here."""
    jetson = find_jetson() if name == "tensorrt" else None
    return _MODULES[name][1] if jetson is None else f"jetson{jetson.jetpack or 6}"


def import_runtime(name: VariantName) -> Variant:
    """Import a variant for running engines. Raises MissingExtraError, and PlumeExportError if it cannot be loaded."""
    module, extra = _MODULES[name]
    if find_spec(module) is None:
        if name == "tensorrt" and find_jetson() is not None:
            raise PlumeExportError(f"The Python package {module!r} was not found.", fix=_JETPACKS_OWN)
        raise MissingExtraError(module, extra)
    try:
        return Variant(name, import_module(module))
    except (ImportError, OSError, RuntimeError) as error:  # NVIDIA's own loader raises RuntimeError
        raise PlumeExportError(
            f"The Python package {module!r} is installed but cannot be imported: {error}.",
            fix=f"pip install --force-reinstall 'plume-export[{extra}]' (on Jetson: reinstall JetPack's TensorRT)",
        ) from None
