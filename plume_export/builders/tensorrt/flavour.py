"""TensorRT or TensorRT-RTX: which Python module, which version, and what it can build here."""

import platform
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from ...doctor import find_gpus, output_of
from ...errors import MissingExtraError, PlumeExportError

FlavourName = Literal["tensorrt", "tensorrt-rtx"]
# What an engine is built for where it runs on more than one kind of GPU.
PORTABLE = "portable"
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
    gpus = find_gpus(output_of)
    return f"{gpus[0].name} {gpus[0].compute_capability}" if gpus else platform.machine()


def import_flavour(name: FlavourName) -> Flavour:
    """Import a flavour. Raises MissingExtraError, and PlumeExportError for one without the ONNX parser."""
    module, extra = _MODULES[name]
    try:
        trt = import_module(module)
    except ImportError:
        raise MissingExtraError(module, extra) from None
    if not hasattr(trt, "OnnxParser"):
        raise PlumeExportError(
            f"This {module} {trt.__version__} comes without the ONNX parser.",
            fix="install the full package (on Jetson: apt install python3-libnvinfer libnvonnxparsers10)",
        )
    return Flavour(name, trt)
