"""What this machine has and lacks for plume-export, each line with the fix."""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from .gpu import DeviceMemory, Gpu, Jetson, Read, Run, device_memory, find_gpus, find_jetson, output_of, text_of
from .software import FLAVOUR_TITLES, CudaVersions, Software, cuda_version_text, find_software, package_version

# What needs which packages; the names are those of the distributions.
EXTRAS: dict[str, tuple[str, ...]] = {
    "export": ("huggingface-hub", "jinja2", "onnx", "onnx-ir", "onnxscript", "safetensors", "torch", "transformers"),
    "compile": ("onnx", "onnx-ir"),
    "cpu": ("onnxruntime",),
    "bench": ("matplotlib", "onnx", "onnx-ir"),
    "modelopt": ("lief", "nvidia-modelopt", "onnx-graphsurgeon", "onnxslim"),
    "evaluate": ("pytrec-eval-terrier", "scipy"),
    "video": ("av",),
    "heif": ("pillow-heif",),
    "parquet": ("pyarrow",),
}
# TensorRT comes with JetPack there, and in wheels everywhere else.
EXTRAS_OF_JETPACK: dict[str, dict[str, tuple[str, ...]]] = {
    "6": {"jetson6": ("cuda-bindings", "onnx", "onnx-ir")},
    "7": {"jetson7": ("cuda-bindings", "onnx", "onnx-ir")},
}
EXTRAS_BESIDE_JETSON: dict[str, tuple[str, ...]] = {
    "gpu": ("cuda-bindings", "onnxruntime-gpu"),
    "rtx": ("cuda-bindings", "tensorrt-rtx-cu13"),
    "tensorrt": ("cuda-bindings", "tensorrt"),
}
# What does as well as the package that an extra names.
_INSTEAD: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx-cu13": ("tensorrt-rtx-cu12",),
}
_OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Check:
    """One thing that was looked for. `fix` says how to get it where it is missing; an optional one may well stay away."""

    name: str
    found: str | None
    fix: str = ""
    is_optional: bool = False

    @property
    def is_ok(self) -> bool:
        return self.found is not None


def examine(run: Run = output_of, read: Read = text_of, software: Software | None = None) -> list[Check]:
    """Look at this machine: `run` runs a command, `read` reads a file of the system; `software` None is looked for."""
    software = software or find_software()
    gpus, jetson = find_gpus(run, read), find_jetson(read)
    return [
        _python(),
        *_jetson_checks(jetson),
        *_gpu_checks(gpus, device_memory(run, read)),
        *_cuda_checks(software.cuda),
        *_flavour_checks(software, gpus),
        *_onnxruntime_checks(software),
        *_extra_checks(jetson),
    ]


def _python() -> Check:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    is_new_enough = sys.version_info >= _OLDEST_PYTHON
    return Check("Python", found if is_new_enough else None, f"Python 3.10 or newer; this is {platform.python_version()}")


def _jetson_checks(jetson: Jetson | None) -> Iterator[Check]:
    """On a Jetson, its model and the release of its system; nothing elsewhere."""
    if jetson is None:
        return
    yield Check("Jetson", jetson.model)
    jetpack = "a JetPack that is not known here" if jetson.jetpack is None else f"JetPack {jetson.jetpack}"
    found = None if jetson.release is None else f"{jetson.release}, {jetpack}"
    yield Check("Jetson Linux", found, "/etc/nv_tegra_release does not tell; install JetPack again")


def _gpu_checks(gpus: list[Gpu], memory: DeviceMemory | None) -> Iterator[Check]:
    if not gpus:
        yield Check("GPU", None, "no NVIDIA driver was found: bundles run on the CPU here")
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
        yield Check("CUDA runtime", None, "cuda-bindings, which runs engines, comes with the extras for GPUs below")
        return
    runtime = cuda_version_text(cuda.runtime)
    yield Check("CUDA runtime", f"{runtime} (cuda-bindings)")
    if cuda.driver is None:
        yield Check("CUDA driver", None, "no NVIDIA driver was found: TensorRT-RTX engines can be built here, none can be run")
        return
    driver = cuda_version_text(cuda.driver)
    fix = (
        f"the driver, of CUDA {driver}, is too old for the CUDA runtime {runtime}: update the NVIDIA driver "
        f"(TensorRT and ONNX Runtime also come for CUDA {cuda.driver // 1000}: see docs/targets.md)"
    )
    yield Check("CUDA driver", None if cuda.is_driver_too_old else driver, fix)


def _flavour_checks(software: Software, gpus: list[Gpu]) -> Iterator[Check]:
    for flavour in software.flavours:
        title = FLAVOUR_TITLES[flavour.name]
        found = None if flavour.version is None else f"{flavour.version}, with the ONNX parser"
        yield Check(title, found, f"{flavour.problem} {flavour.fix}")
        if flavour.name == "tensorrt-rtx" and found and gpus and not any(gpu.is_listed_for_rtx for gpu in gpus):
            capabilities = ", ".join(gpu.compute_capability for gpu in gpus)
            yield Check(
                f"{title} on this GPU",
                None,
                f"its support matrix does not list compute capability {capabilities}: engines that are built here are for "
                "other machines; --target with a recipe of TensorRT, or cuda",
            )


def _onnxruntime_checks(software: Software) -> Iterator[Check]:
    installed = software.onnxruntime
    found = None if installed is None else f"{installed.version}, {', '.join(installed.providers)}"
    yield Check("ONNX Runtime", found, "pip install 'plume-export[cpu]', or 'plume-export[gpu]' for its CUDA provider")
    packages = [package for package in ("onnxruntime", "onnxruntime-gpu") if package_version(package) is not None]
    if len(packages) > 1:
        fix = "pip uninstall onnxruntime onnxruntime-gpu, then install one of them: each overwrites files of the other"
        yield Check("one ONNX Runtime", None, fix)


def _extra_checks(jetson: Jetson | None) -> Iterator[Check]:
    for_gpus = EXTRAS_BESIDE_JETSON if jetson is None else EXTRAS_OF_JETPACK.get(jetson.jetpack or "", {})
    for extra, packages in (EXTRAS | for_gpus).items():
        versions = {package: _version_of_either(package) for package in packages}
        missing = [package for package, found in versions.items() if found is None]
        found = ", ".join(f"{package} {number}" for package, number in versions.items())
        fix = f"pip install 'plume-export[{extra}]' (missing: {', '.join(missing)})"
        if "onnxruntime-gpu" in missing and package_version("onnxruntime") is not None:
            fix = f"pip uninstall onnxruntime, whose files it overwrites, then {fix}"
        yield Check(f"extra {extra}", None if missing else found, fix, is_optional=True)


def _version_of_either(package: str) -> str | None:
    found = (package_version(name) for name in (package, *_INSTEAD.get(package, ())))
    return next((number for number in found if number is not None), None)
