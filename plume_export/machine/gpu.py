"""Detect the GPUs and the Jetson of this machine without CUDA, from text output of the driver and the system."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Runs a command and returns its output; None if the command is missing or fails.
Run = Callable[[tuple[str, ...]], str | None]
# Returns the text of a file; None if the file is missing.
Read = Callable[[Path], str | None]

GPU_QUERY = (
    "nvidia-smi",
    "--query-gpu=index,name,compute_cap,memory.total,memory.free,driver_version",
    "--format=csv,noheader,nounits",
)
TEGRA_RELEASE = Path("/etc/nv_tegra_release")
DEVICE_MODEL = Path("/proc/device-tree/model")
SYSTEM_MEMORY = Path("/proc/meminfo")
UNKNOWN = "unknown"
# TensorRT-RTX's support matrix: these compute capabilities, and 12.x.
_RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9")
_RTX_MAJOR = "12."
# By a word in the device's model name. The driver of a Jetson does not always report the capability.
_JETSON_CAPABILITIES = {"Orin": "8.7", "Thor": "11.0", "Xavier": "7.2"}
# By the first number of the Jetson Linux release.
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


@dataclass(frozen=True)
class Jetson:
    """A Jetson: its model, the release of Jetson Linux (36.4.3) and the matching JetPack (6); None where unknown."""

    model: str
    release: str | None
    jetpack: str | None


@dataclass(frozen=True)
class DeviceMemory:
    """Total and free memory of a GPU."""

    total_bytes: int
    free_bytes: int


def output_of(command: tuple[str, ...]) -> str | None:
    """Run a command and return its output; None if the command is missing or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def text_of(file: Path) -> str | None:
    """Return the text of a file; None if it cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return None


def find_gpus(run: Run = output_of, read: Read = text_of) -> list[Gpu]:
    """Return the GPUs that the NVIDIA driver lists, or the Jetson's own GPU, named like the device. Empty if there is no
    GPU.
    """
    lines = (run(GPU_QUERY) or "").splitlines()
    fields = [[part.strip() for part in line.split(",")] for line in lines]
    listed = [_gpu(parts) for parts in fields if len(parts) == 6 and parts[0].isdecimal()]
    jetson = find_jetson(read)
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


def device_memory(run: Run = output_of, read: Read = text_of) -> DeviceMemory | None:
    """Return the memory of the first GPU; None without a GPU. An integrated GPU uses system memory."""
    gpus = find_gpus(run, read)
    if not gpus:
        return None
    total, free = gpus[0].memory_bytes, gpus[0].free_memory_bytes
    return system_memory(read) if total is None or free is None else DeviceMemory(total, free)


def system_memory(read: Read = text_of) -> DeviceMemory | None:
    """Return MemTotal and MemAvailable of /proc/meminfo, which are in kB of 1024 bytes; None if the file is missing."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", read(SYSTEM_MEMORY) or "", re.MULTILINE))
    if len(found) != 2:
        return None
    return DeviceMemory(int(found["MemTotal"]) << 10, int(found["MemAvailable"]) << 10)


def _gpu(parts: list[str]) -> Gpu:
    index, name, capability, total, free, driver = parts
    return Gpu(int(index), name, _told(capability), _bytes_of_mib(total), _bytes_of_mib(free), driver)


def _integrated_gpu(jetson: Jetson, listed: list[Gpu]) -> Gpu:
    """Return the Jetson's GPU. Its driver reports every Orin as "Orin (nvgpu)", and older ones have no nvidia-smi."""
    known = next((number for word, number in _JETSON_CAPABILITIES.items() if word in jetson.model), UNKNOWN)
    told = listed[0].compute_capability if listed else UNKNOWN
    driver = listed[0].driver if listed else f"of Jetson Linux {jetson.release}"
    return Gpu(0, jetson.model, known if told == UNKNOWN else told, None, None, driver)


def _told(field: str) -> str:
    return UNKNOWN if field.startswith("[") or not field else field


def _bytes_of_mib(field: str) -> int | None:
    """Return the bytes of a field in MiB; None for "[N/A]" and similar values."""
    return int(field) << 20 if field.isdecimal() else None
