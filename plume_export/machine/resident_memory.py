"""Memory use of this process."""

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

# A mapped file in /proc/self/smaps: addresses; offset, device, inode and path; resident and proportional kB.
_MAPPING = r"^([0-9a-f]+)-([0-9a-f]+) \S+ (\S+ \S+ [1-9]\d* .*)\n(?:[A-Z]\w+: .*\n)*?Rss:\s+(\d+) kB\nPss:\s+(\d+) kB"


class ResidentMemory(NamedTuple):
    """Resident bytes of the process: now and at peak."""

    now: int
    peak: int


def resident_memory() -> ResidentMemory:
    """Return the resident memory of this process."""
    import psutil

    memory = psutil.Process().memory_info()
    return ResidentMemory(memory.rss, max(memory.rss, _peak_bytes(memory)))


def _peak_bytes(memory: Any) -> int:
    """Return the peak, which psutil reports on Windows only.

    Linux reports it in /proc. On Linux getrusage is the second choice, because its value starts at the parent process's peak.
    """
    if sys.platform == "win32":
        return int(memory.peak_wset)
    import resource

    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.is_file() else None
    if found is not None:
        return int(found[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def mapped_twice_bytes() -> int | None:
    """Return the bytes of resident memory that are counted more than once, because a file is mapped more than once.

    This is the difference between resident and proportional memory (Rss - Pss), summed over the parts of files that this
    process maps more than once. The result is too large if another process maps them as well. /proc is read directly, because
    psutil does not report which part of a file is mapped. Returns None if the system does not report it (only Linux does, and
    not all kernels).
    """
    try:
        mappings = Path("/proc/self/smaps").read_text(errors="replace")
    except OSError:
        return None
    excess: dict[tuple[str, int], list[int]] = {}
    for first, last, file, resident, proportional in re.findall(_MAPPING, mappings, re.MULTILINE):
        # Proportional memory is needed because two mappings of a part may have different resident pages.
        part = (file, int(last, 16) - int(first, 16))
        excess.setdefault(part, []).append(int(resident) - int(proportional))
    return sum(sum(one) for one in excess.values() if len(one) > 1) << 10
