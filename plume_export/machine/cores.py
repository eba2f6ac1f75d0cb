"""The CPU: its cores and threads, and whether its int8 matmuls are exact."""

import platform
from pathlib import Path

from ..errors import OptionError
from .gpu import Read, text_of

PROCESSOR = Path("/proc/cpuinfo")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def has_exact_int8_sums(read: Read = text_of) -> bool:
    """Return True if ONNX Runtime's uint8-by-int8 matmuls are exact on this CPU. Return False for an unknown CPU.

    On x86 without VNNI their sums saturate at 16 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    flags = read(PROCESSOR) or ""
    return "avx512_vnni" in flags or "avx_vnni" in flags


def check_threads(threads: int | None) -> None:
    """Raise PlumeExportError if `threads` is below one or above this machine's number of logical CPUs. None is always valid.

    The limit is the machine's number, even if a container or `taskset` allows this process fewer CPUs: more threads than that
    are slow but harmless.
    """
    if threads is None:
        return
    cpus = logical_cpu_count()
    if not 1 <= threads <= cpus:
        raise OptionError(
            f"threads is {threads}; expected 1 to {cpus}. This process may use {len(usable_cpus())} of the "
            f"machine's {cpus} logical CPUs.",
            fix="choose --threads in that range, or omit it to use one thread per available core",
        )


def logical_cpu_count() -> int:
    """Return the number of hardware threads of this machine."""
    import psutil

    return psutil.cpu_count() or 1


def usable_cpus() -> list[int]:
    """Return the numbers of the logical CPUs that this process may use."""
    import psutil

    process = psutil.Process()
    return sorted(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else [*range(logical_cpu_count())]  # not on macOS


def usable_core_count(read: Read = text_of) -> int:
    """Return the number of cores that this process may use. Two hardware threads of one core count once.

    psutil counts the cores of the whole machine. If this process may use only some of them, Linux reports which hardware
    threads share a core.
    """
    import psutil

    usable = usable_cpus()
    if len(usable) == logical_cpu_count():
        return psutil.cpu_count(logical=False) or len(usable)
    return len({read(Path(_SIBLINGS.format(cpu))) or str(cpu) for cpu in usable})
