"""Detect the installed GPU software: TensorRT, TensorRT-RTX, ONNX Runtime, CUDA. Each package is imported for its version."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..errors import MissingExtraError, PlumeExportError
from .onnxruntime_module import import_onnxruntime
from .tensorrt_variant import VARIANT_NAMES, VariantName, import_variant, is_variant_installed

# ONNX's operators have an empty domain; ONNX Runtime's own operators are in this domain.
ONNXRUNTIME_DOMAIN = "com.microsoft"
CUDA_PROVIDER = "CUDAExecutionProvider"
VARIANT_TITLES: dict[VariantName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class InstalledVariant:
    """TensorRT or TensorRT-RTX. If `version` is None, it cannot build engines: `problem` gives the reason and `fix` the remedy.

    `is_broken` is True if it is installed but does not work.
    """

    name: VariantName
    version: str | None
    problem: str = ""
    fix: str = ""
    is_broken: bool = False


@dataclass(frozen=True)
class InstalledOnnxRuntime:
    """ONNX Runtime and the providers that it was built with."""

    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True)
class CudaVersions:
    """CUDA versions of the driver (None: no driver) and of cuda-bindings, as cudaDriverGetVersion gives them (13040: 13.4)."""

    driver: int | None
    runtime: int

    @property
    def is_driver_too_old(self) -> bool:
        """Whether the driver is too old for cuda-bindings. A driver supports its own major version and older ones."""
        return self.driver is not None and self.driver // 1000 < self.runtime // 1000


@dataclass(frozen=True)
class Software:
    """The installed GPU software. None means not installed."""

    variants: tuple[InstalledVariant, ...]
    onnxruntime: InstalledOnnxRuntime | None
    cuda: CudaVersions | None


def find_software() -> Software:
    """Detect all installed packages. Takes a second if TensorRT is installed."""
    return Software(tuple(find_variant_state(name) for name in VARIANT_NAMES), find_onnxruntime(), find_cuda())


def find_variant_state(name: VariantName) -> InstalledVariant:
    """Return the version of a TensorRT variant, or the reason why it cannot build engines."""
    try:
        return InstalledVariant(name, import_variant(name).version)
    except PlumeExportError as error:
        return InstalledVariant(name, None, error.message, error.command_line_fix or "", is_broken=is_variant_installed(name))


def find_onnxruntime() -> InstalledOnnxRuntime | None:
    """Return the version and providers of ONNX Runtime. Several packages install it."""
    try:
        onnxruntime = import_onnxruntime()
    except MissingExtraError:
        return None
    return InstalledOnnxRuntime(str(onnxruntime.__version__), tuple(onnxruntime.get_available_providers()))


def find_cuda() -> CudaVersions | None:
    """Return CUDA's versions from cuda-bindings. Works without a GPU. Source: cudaDriverGetVersion, cudaRuntimeGetVersion."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    _, driver = runtime.cudaDriverGetVersion()
    _, own = runtime.cudaRuntimeGetVersion()
    return CudaVersions(int(driver) or None, int(own))


def cuda_version_text(number: int) -> str:
    """Return "13.4" for 13040."""
    return f"{number // 1000}.{number % 1000 // 10}"


def package_version(package: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
