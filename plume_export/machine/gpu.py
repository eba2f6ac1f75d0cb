"""Detect the GPUs, the Jetson and the memory of this machine without CUDA."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Returns the text of a file; None if the file is missing.
Read = Callable[[Path], str | None]

TEGRA_RELEASE = Path("/etc/nv_tegra_release")
DEVICE_MODEL = Path("/proc/device-tree/model")
UNKNOWN = "unknown"
# TensorRT-RTX's support matrix: these compute capabilities, and 12.x.
_RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9")
_RTX_MAJOR = "12."
# Compute capability by a word in the device's model name. The driver of a Jetson does not always report it.
_JETSON_CAPABILITIES = {"Orin": "8.7", "Thor": "11.0", "Xavier": "7.2"}
# JetPack version by the first number of the Jetson Linux release.
_JETPACKS = {"35": "5", "36": "6", "38": "7", "39": "7"}


@dataclass(frozen=True)
class Gpu:
    """One CUDA GPU. `memory_bytes` is None if the GPU uses system memory (Jetson, and other integrated GPUs)."""

    index: int
    name: str
    compute_capability: str
    memory_bytes: int | None
    free_memory_bytes: int | None
    driver: str

    @property
    def is_integrated(self) -> bool:
        return self.memory_bytes is None

    @property
    def is_listed_for_rtx(self) -> bool:
        """Whether TensorRT-RTX's support matrix lists its compute capability."""
        return self.compute_capability in _RTX_CAPABILITIES or self.compute_capability.startswith(_RTX_MAJOR)


# Returns the GPUs that the driver lists.
ListedGpus = Callable[[], list[Gpu]]


@dataclass(frozen=True)
class Jetson:
    """A Jetson: its model, the release of Jetson Linux (such as 36.4.3) and its JetPack (such as 6). None: unknown."""

    model: str
    release: str | None
    jetpack: str | None


@dataclass(frozen=True)
class DeviceMemory:
    """Total and free memory of a GPU."""

    total_bytes: int
    free_bytes: int


def text_of(file: Path) -> str | None:
    """Return the text of a file; None if it cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return None


def driver_gpus() -> list[Gpu]:
    """Return the GPUs that the NVIDIA driver lists; empty without a driver. Source: NVML, by nvidia-ml-py."""
    try:
        import pynvml as nvml
    except ImportError:  # macOS has no NVIDIA driver
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        listed = (_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        return [gpu for gpu in listed if gpu is not None]
    finally:
        nvml.nvmlShutdown()


def find_gpus(listed_gpus: ListedGpus = driver_gpus, read: Read = text_of) -> list[Gpu]:
    """Return the GPUs that the NVIDIA driver lists, or on a Jetson its GPU, named like the device. Empty if there is none."""
    listed, jetson = listed_gpus(), find_jetson(read)
    return listed if jetson is None else [_integrated_gpu(jetson, listed)]


def find_jetson(read: Read = text_of) -> Jetson | None:
    """Return the Jetson described by the device tree and the release file; None on other machines."""
    model, release = read(DEVICE_MODEL) or "", read(TEGRA_RELEASE)
    if "Jetson" not in model and release is None:
        return None
    number = tegra_release(release or "")
    jetpack = None if number is None else _JETPACKS.get(number.split(".")[0])
    return Jetson(model.rstrip("\0\n") or "Jetson", number, jetpack)


def tegra_release(text: str) -> str | None:
    """Return the release, such as "36.4.3", from the first line of /etc/nv_tegra_release."""
    found = re.search(r"R(\d+) .*REVISION: ([\d.]+)", text)
    return None if found is None else f"{found[1]}.{found[2]}"


def device_memory(listed_gpus: ListedGpus = driver_gpus, read: Read = text_of) -> DeviceMemory | None:
    """Return the memory of the first GPU; None without a GPU. An integrated GPU uses system memory."""
    gpus = find_gpus(listed_gpus, read)
    if not gpus:
        return None
    total, free = gpus[0].memory_bytes, gpus[0].free_memory_bytes
    return system_memory() if total is None or free is None else DeviceMemory(total, free)


def system_memory() -> DeviceMemory:
    """Return the memory of this machine. Free is what a program can allocate without swapping."""
    import psutil

    memory = psutil.virtual_memory()
    return DeviceMemory(memory.total, memory.available)


def _gpu(nvml: Any, index: int) -> Gpu | None:
    """Return one GPU, or None if it does not respond, as when it has fallen off the bus."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name, driver = nvml.nvmlDeviceGetName(handle), nvml.nvmlSystemGetDriverVersion()
    except nvml.NVMLError:
        return None
    capability = _or_none(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    memory = _or_none(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    total, free = (None, None) if memory is None else (memory.total, memory.free)
    return Gpu(index, name, UNKNOWN if capability is None else "{}.{}".format(*capability), total, free, driver)


def _or_none(nvml: Any, function: Callable[..., Any], handle: Any) -> Any:
    """Return None if the device does not report a value. Integrated GPUs, for example, report no memory."""
    try:
        return function(handle)
    except nvml.NVMLError:
        return None


def _integrated_gpu(jetson: Jetson, listed: list[Gpu]) -> Gpu:
    """Return the Jetson's GPU. Its driver reports every Orin as "Orin (nvgpu)", and older drivers lack a full NVML."""
    by_model = next((number for word, number in _JETSON_CAPABILITIES.items() if word in jetson.model), UNKNOWN)
    reported = listed[0].compute_capability if listed else UNKNOWN
    driver = listed[0].driver if listed else f"of Jetson Linux {jetson.release}"
    return Gpu(0, jetson.model, by_model if reported == UNKNOWN else reported, None, None, driver)
