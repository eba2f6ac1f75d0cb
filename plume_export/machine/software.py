"""What is installed for a GPU: TensorRT in its two flavours, ONNX Runtime, CUDA. Whatever is there is imported to ask it."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..errors import MissingExtraError, PlumeExportError
from .onnxruntime_module import import_onnxruntime
from .tensorrt_variant import FLAVOUR_NAMES, FlavourName, import_flavour

# ONNX's operators are in no domain; those that ONNX Runtime adds are in this one.
ONNXRUNTIME_DOMAIN = "com.microsoft"
CUDA_PROVIDER = "CUDAExecutionProvider"
FLAVOUR_TITLES: dict[FlavourName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class InstalledFlavour:
    """A flavour of TensorRT. Version None: it cannot build engines; `problem` says why, `fix` what helps."""

    name: FlavourName
    version: str | None
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True)
class InstalledOnnxRuntime:
    """ONNX Runtime and the providers that it was built with."""

    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True)
class CudaVersions:
    """The CUDA of the driver (None: no driver) and of the cuda-bindings package, as cudaDriverGetVersion counts: 13040."""

    driver: int | None
    runtime: int

    @property
    def is_driver_too_old(self) -> bool:
        """A driver runs programs of its own major version and of older ones."""
        return self.driver is not None and self.driver // 1000 < self.runtime // 1000


@dataclass(frozen=True)
class Software:
    """What was found. None: not installed."""

    flavours: tuple[InstalledFlavour, ...]
    onnxruntime: InstalledOnnxRuntime | None
    cuda: CudaVersions | None


def find_software() -> Software:
    """Ask every package that is there. Takes a second where TensorRT is installed."""
    return Software(tuple(find_flavour_state(name) for name in FLAVOUR_NAMES), find_onnxruntime(), find_cuda())


def find_flavour_state(name: FlavourName) -> InstalledFlavour:
    """Return a flavour's version, or why it cannot build engines."""
    try:
        return InstalledFlavour(name, import_flavour(name).version)
    except PlumeExportError as error:
        return InstalledFlavour(name, None, error.message, error.fix or "")


def find_onnxruntime() -> InstalledOnnxRuntime | None:
    """Return ONNX Runtime's version and providers, of whichever package it came with."""
    try:
        onnxruntime = import_onnxruntime()
    except MissingExtraError:
        return None
    return InstalledOnnxRuntime(str(onnxruntime.__version__), tuple(onnxruntime.get_available_providers()))


def find_cuda() -> CudaVersions | None:
    """Return CUDA's versions by cuda-bindings; works without a GPU. Source: cudaDriverGetVersion, cudaRuntimeGetVersion."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    _, driver = runtime.cudaDriverGetVersion()
    _, own = runtime.cudaRuntimeGetVersion()
    return CudaVersions(int(driver) or None, int(own))


def cuda_version_text(number: int) -> str:
    """Return "13.4" of 13040."""
    return f"{number // 1000}.{number % 1000 // 10}"


def package_version(package: str) -> str | None:
    """Return the version of an installed distribution; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
