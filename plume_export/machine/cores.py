"""The CPU: whether its int8 sums are exact, and how many threads a user may request."""

import os
import platform
from pathlib import Path

from ..errors import OptionError
from .gpu import Read, text_of

PROCESSOR = Path("/proc/cpuinfo")


def sums_int8_exactly(read: Read = text_of) -> bool:
    """Return True if ONNX Runtime's sums of uint8 by int8 products are exact. Unknown CPUs return False.

    On x86 without VNNI the sums saturate at 16 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    flags = read(PROCESSOR) or ""
    return "avx512_vnni" in flags or "avx_vnni" in flags


def check_threads(threads: int | None) -> None:
    """Raise PlumeExportError if `threads` is below one or above this machine's number of logical CPUs. None is always valid.

    The limit is the machine's (`os.cpu_count`), not the number of CPUs that a container or `taskset` leaves to this process.
    Too many threads for the process are slow but harmless.
    """
    if threads is None:
        return
    cpus = os.cpu_count() or 1
    if not 1 <= threads <= cpus:
        raise OptionError(
            f"threads is {threads}; expected 1 to {cpus}. This process may use {_usable_cpus(cpus)} of the "
            f"machine's {cpus} logical CPUs.",
            fix="choose --threads in that range, or omit it to use one thread per available core",
        )


def _usable_cpus(cpus: int) -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpus
