"""The processor: what it computes exactly, and how many threads a user may ask for."""

import os
import platform
from pathlib import Path

from ..errors import OptionError
from .gpu import Read, text_of

PROCESSOR = Path("/proc/cpuinfo")


def sums_int8_exactly(read: Read = text_of) -> bool:
    """Whether ONNX Runtime's sums of uint8 by int8 are exact: on x86 without VNNI they saturate in 16 bits. Unknown is no."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    flags = read(PROCESSOR) or ""
    return "avx512_vnni" in flags or "avx_vnni" in flags


def check_threads(threads: int | None) -> None:
    """Raise PlumeExportError for less than one thread, or more than this machine has logical CPUs. None is always right.

    What counts is the machine (`os.cpu_count`), not the CPUs that a container or `taskset` leaves to this process: too many
    threads there are slow, and no danger.
    """
    if threads is None:
        return
    cpus = os.cpu_count() or 1
    if not 1 <= threads <= cpus:
        raise OptionError(
            f"threads is {threads}; expected 1 to {cpus}: this machine has {cpus} logical CPUs, of which this process may use "
            f"{_usable_cpus(cpus)}.",
            fix="a --threads in that range, or none: one thread for each core that this process may use",
        )


def _usable_cpus(cpus: int) -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpus
