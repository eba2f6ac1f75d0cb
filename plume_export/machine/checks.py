"""Check this machine for what plume-export needs, and suggest a fix for each problem."""

import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from .gpu import DeviceMemory, Gpu, Jetson, ListedGpus, Read, device_memory, driver_gpus, find_gpus, find_jetson, text_of
from .software import VARIANT_TITLES, CudaVersions, Software, cuda_version_text, find_software, package_version

# Each extra and the distributions that it needs.
EXTRAS: dict[str, tuple[str, ...]] = {
    "export": ("huggingface-hub", "jinja2", "onnx", "onnx-ir", "onnxscript", "safetensors", "torch", "transformers"),
    "compile": ("onnx", "onnx-ir", "onnxscript"),
    "cpu": ("onnxruntime",),
    "bench": ("matplotlib", "onnx", "onnx-ir", "scipy"),
    "evaluate": ("pytrec-eval-terrier", "scipy"),
    "video": ("av",),
    "heif": ("pillow-heif",),
    "parquet": ("pyarrow",),
}
# On a Jetson, TensorRT comes with JetPack. Elsewhere it comes in wheels.
EXTRAS_OF_JETPACK: dict[str, dict[str, tuple[str, ...]]] = {
    "6": {"jetson6": ("cuda-bindings", "onnx", "onnx-ir")},
    "7": {"jetson7": ("cuda-bindings", "onnx", "onnx-ir")},
}
EXTRAS_BESIDE_JETSON: dict[str, tuple[str, ...]] = {
    "gpu": ("cuda-bindings", "onnxruntime-gpu"),
    "rtx": ("cuda-bindings", "tensorrt-rtx-cu13"),
    "tensorrt": ("cuda-bindings", "tensorrt"),
}
# Distributions that can replace a distribution of an extra.
_INSTEAD: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx-cu13": ("tensorrt-rtx-cu12",),
}
_OLDEST_PYTHON = (3, 10)


State = Literal["ok", "missing", "unusable"]


@dataclass(frozen=True)
class Check:
    """The result of one check. `fix` says how to solve the problem; an optional check may fail without harm.

    `is_unusable` is True if the thing is installed but does not work, so that it is not reported as missing.
    """

    name: str
    found: str | None
    fix: str = ""
    is_optional: bool = False
    is_unusable: bool = False

    @property
    def is_ok(self) -> bool:
        return self.found is not None

    @property
    def state(self) -> State:
        """Return the state in one word. `doctor` prints what the three words mean."""
        return "ok" if self.is_ok else "unusable" if self.is_unusable else "missing"


def examine(listed_gpus: ListedGpus = driver_gpus, read: Read = text_of, software: Software | None = None) -> list[Check]:
    """Check this machine. `read` reads a system file; if `software` is None, it is detected."""
    software = software or find_software()
    gpus, jetson = find_gpus(listed_gpus, read), find_jetson(read)
    return [
        _python(),
        *_jetson_checks(jetson),
        *_gpu_checks(gpus, device_memory(listed_gpus, read)),
        *_cuda_checks(software.cuda),
        *_variant_checks(software, gpus),
        *_onnxruntime_checks(software),
        *_extra_checks(jetson),
    ]


def _python() -> Check:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    is_new_enough = sys.version_info >= _OLDEST_PYTHON
    fix = f"Python 3.10 or newer; this is Python {platform.python_version()}"
    return Check("Python", found if is_new_enough else None, fix, is_unusable=True)


def _jetson_checks(jetson: Jetson | None) -> Iterator[Check]:
    """Yield the device model and system release of a Jetson. Yield nothing on other machines."""
    if jetson is None:
        return
    yield Check("Jetson", jetson.model)
    jetpack = "an unknown JetPack" if jetson.jetpack is None else f"JetPack {jetson.jetpack}"
    found = None if jetson.release is None else f"{jetson.release}, {jetpack}"
    yield Check("Jetson Linux", found, "/etc/nv_tegra_release has no release number; reinstall JetPack")


def _gpu_checks(gpus: list[Gpu], memory: DeviceMemory | None) -> Iterator[Check]:
    if not gpus:
        yield Check("GPU", None, "no NVIDIA driver was found; bundles run on the CPU")
    for gpu in gpus:
        listed = "listed" if gpu.is_listed_for_rtx else "not listed"
        yield Check(
            "GPU",
            f"{gpu.name}, compute capability {gpu.compute_capability}, {_memory_text(gpu, memory)}, driver {gpu.driver}; "
            f"{listed} in TensorRT-RTX's support matrix",
        )


def _memory_text(gpu: Gpu, system: DeviceMemory | None) -> str:
    if gpu.memory_bytes is not None and gpu.free_memory_bytes is not None:
        return f"{_gigabytes(gpu.memory_bytes)} ({_gigabytes(gpu.free_memory_bytes)} free)"
    if system is None:
        return "memory unknown"
    return f"{_gigabytes(system.total_bytes)} shared with the CPU ({_gigabytes(system.free_bytes)} free)"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _cuda_checks(cuda: CudaVersions | None) -> Iterator[Check]:
    if cuda is None:
        yield Check("CUDA runtime", None, "cuda-bindings is needed to run engines; it comes with the GPU extras below")
        return
    runtime = cuda_version_text(cuda.runtime)
    yield Check("CUDA runtime", f"{runtime} (cuda-bindings)")
    if cuda.driver is None:
        yield Check("CUDA driver", None, "no NVIDIA driver was found; TensorRT-RTX engines can be built here but not run")
        return
    driver = cuda_version_text(cuda.driver)
    fix = (
        f"the driver supports CUDA {driver}, which is too old for the CUDA runtime {runtime}: update the "
        f"NVIDIA driver, or install packages for CUDA {cuda.driver // 1000} (see docs/targets.md)"
    )
    yield Check("CUDA driver", None if cuda.is_driver_too_old else driver, fix, is_unusable=True)


def _variant_checks(software: Software, gpus: list[Gpu]) -> Iterator[Check]:
    for variant in software.variants:
        title = VARIANT_TITLES[variant.name]
        found = None if variant.version is None else f"{variant.version}, with the ONNX parser"
        yield Check(title, found, f"{variant.problem} {variant.fix}", is_unusable=variant.is_broken)
        if variant.name == "tensorrt-rtx" and found and gpus and not any(gpu.is_listed_for_rtx for gpu in gpus):
            capabilities = ", ".join(gpu.compute_capability for gpu in gpus)
            yield Check(
                f"{title} on this GPU",
                None,
                f"its support matrix does not list compute capability {capabilities}, so engines built here run only on "
                "other machines; use --target cuda or a TensorRT target",
                is_unusable=True,
            )


def _onnxruntime_checks(software: Software) -> Iterator[Check]:
    installed = software.onnxruntime
    found = None if installed is None else f"{installed.version}, {', '.join(installed.providers)}"
    yield Check("ONNX Runtime", found, "pip install 'plume-export[cpu]', or 'plume-export[gpu]' for the CUDA provider")
    packages = [package for package in ("onnxruntime", "onnxruntime-gpu") if package_version(package) is not None]
    if len(packages) > 1:
        fix = "pip uninstall onnxruntime onnxruntime-gpu, then install one of them: each overwrites the other's files"
        yield Check("one ONNX Runtime", None, fix, is_unusable=True)


def _extra_checks(jetson: Jetson | None) -> Iterator[Check]:
    for extra, packages in extras_for(jetson).items():
        versions = {package: _version_of_either(package) for package in packages}
        missing = [package for package, found in versions.items() if found is None]
        found = ", ".join(f"{package} {number}" for package, number in versions.items())
        fix = f"pip install 'plume-export[{extra}]' (missing: {', '.join(missing)})"
        if "onnxruntime-gpu" in missing and package_version("onnxruntime") is not None:
            fix = f"pip uninstall onnxruntime, whose files overlap, then {fix}"
        yield Check(f"extra {extra}", None if missing else found, fix, is_optional=True)


def extras_for(jetson: Jetson | None) -> dict[str, tuple[str, ...]]:
    """Return the extras that are useful on this machine, with their packages."""
    for_gpus = EXTRAS_BESIDE_JETSON if jetson is None else EXTRAS_OF_JETPACK.get(jetson.jetpack or "", {})
    return EXTRAS | for_gpus


def has_packages(packages: Iterable[str]) -> bool:
    """Return True if all packages, or replacements for them, are installed."""
    return all(_version_of_either(package) is not None for package in packages)


def _version_of_either(package: str) -> str | None:
    found = (package_version(name) for name in (package, *_INSTEAD.get(package, ())))
    return next((number for number in found if number is not None), None)
