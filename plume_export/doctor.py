"""What this machine has and lacks for plume-export, each line with the fix."""

import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What needs which packages; the names are those of the distributions.
_EXTRAS: dict[str, tuple[str, ...]] = {
    "export": ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "safetensors", "huggingface-hub", "jinja2"),
    "compile": ("onnx", "onnx-ir"),
    "cpu": ("onnxruntime",),
    "evaluate": ("pytrec-eval-terrier", "scipy"),
    "video": ("av",),
    "parquet": ("pyarrow",),
    "rtx": ("tensorrt-rtx-cu13",),
    "tensorrt": ("tensorrt",),
}
# TensorRT-RTX's support matrix: these, and 12.x.
_RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9")
_OLDEST_PYTHON = (3, 10)
_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_DEVICE_MODEL = Path("/proc/device-tree/model")
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader")

Run = Callable[[tuple[str, ...]], str | None]


@dataclass(frozen=True)
class Check:
    """One thing that was looked for. `fix` says how to get it where it is missing."""

    name: str
    found: str | None
    fix: str = ""

    @property
    def is_ok(self) -> bool:
        return self.found is not None


@dataclass(frozen=True)
class Gpu:
    """One CUDA GPU, as its driver tells."""

    name: str
    compute_capability: str
    memory: str
    driver: str

    @property
    def is_listed_for_rtx(self) -> bool:
        """TensorRT-RTX's support matrix has its compute capability."""
        return self.compute_capability in _RTX_CAPABILITIES or self.compute_capability.startswith("12.")


def examine(run: Run | None = None) -> list[Check]:
    """Look at this machine. `run` runs a command and returns its output, None if it is not there."""
    gpus = find_gpus(run or output_of)
    return [_python(), *_device(), *_gpu_checks(gpus), *_extras(), *_runtime_providers()]


def find_gpus(run: Run) -> list[Gpu]:
    """Return the GPUs that the NVIDIA driver lists; none without a driver."""
    lines = (run(_GPU_QUERY) or "").splitlines()
    fields = [[part.strip() for part in line.split(",")] for line in lines]
    return [Gpu(*parts) for parts in fields if len(parts) == 4]


def _python() -> Check:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    is_new_enough = sys.version_info >= _OLDEST_PYTHON
    return Check("Python", found if is_new_enough else None, f"Python 3.10 or newer; this is {platform.python_version()}")


def _device() -> Iterator[Check]:
    """On a Jetson, its model and the release of its system; nothing elsewhere."""
    if _DEVICE_MODEL.is_file() and "Jetson" in (model := _DEVICE_MODEL.read_text(errors="replace").rstrip("\0")):
        yield Check("Jetson", model)
    if _TEGRA_RELEASE.is_file():
        yield Check("Jetson Linux", tegra_release(_TEGRA_RELEASE.read_text(errors="replace")), "install JetPack again")


def tegra_release(text: str) -> str | None:
    """Return "36.4.3" of the first line of /etc/nv_tegra_release. JetPack 6 is 36.x, JetPack 7 is 38.x."""
    found = re.search(r"R(\d+) .*REVISION: ([\d.]+)", text)
    return None if found is None else f"{found[1]}.{found[2]}"


def _gpu_checks(gpus: list[Gpu]) -> Iterator[Check]:
    if not gpus:
        yield Check("GPU", None, "no NVIDIA driver was found: bundles run on the CPU here")
    for gpu in gpus:
        listed = "listed" if gpu.is_listed_for_rtx else "not listed"
        yield Check(
            "GPU",
            f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory}, driver {gpu.driver}; "
            f"{listed} in TensorRT-RTX's support matrix",
        )


def _extras() -> Iterator[Check]:
    for extra, packages in _EXTRAS.items():
        versions = {package: _version(package) for package in packages}
        missing = [package for package, found in versions.items() if found is None]
        found = ", ".join(f"{package} {number}" for package, number in versions.items())
        fix = f"pip install 'plume-export[{extra}]' (missing: {', '.join(missing)})"
        yield Check(f"extra {extra}", None if missing else found, fix)


def _runtime_providers() -> Iterator[Check]:
    try:
        import onnxruntime
    except ImportError:
        return
    yield Check("ONNX Runtime providers", ", ".join(onnxruntime.get_available_providers()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def output_of(command: tuple[str, ...]) -> str | None:
    """Run a command and return its output; None if it is not there or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None
