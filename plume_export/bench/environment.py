"""Where and with what it was measured."""

import os
import platform
import re
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from ..machine.gpu import Read, find_gpus, system_memory, text_of
from ..machine.software import package_version

_CPU_INFO = Path("/proc/cpuinfo")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_PACKAGES = (
    "plume-export",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "torch",
    "transformers",
    "numpy",
)


class Environment(msgspec.Struct, frozen=True):
    """The machine and the versions. `load` is how many processes wanted a core in the minute before: other work disturbs."""

    date: str
    cpu: str
    cores: int
    threads: int
    memory_bytes: int | None
    gpu: str | None
    system: str
    versions: dict[str, str]
    load: float | None


def environment(threads: int) -> Environment:
    """Describe this machine."""
    memory = system_memory()
    gpus = find_gpus()
    versions = {package: found for package in _PACKAGES if (found := package_version(package)) is not None}
    return Environment(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cpu=cpu_name(),
        cores=core_count(),
        threads=threads,
        memory_bytes=None if memory is None else memory.total_bytes,
        gpu=gpus[0].name if gpus else None,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **versions},
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def cpu_name(read: Read = text_of) -> str:
    """Return the processor's model as the system tells it."""
    found = re.search(r"^model name\s*:\s*(.+)$", read(_CPU_INFO) or "", re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def core_count(read: Read = text_of) -> int:
    """Return the cores that this process may use; two hardware threads of one core count once."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len({read(Path(_SIBLINGS.format(cpu))) or str(cpu) for cpu in allowed})
