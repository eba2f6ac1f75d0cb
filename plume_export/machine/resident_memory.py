"""How much memory this process holds."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

# A mapping of a file in /proc/self/smaps: addresses; offset, device, inode and path; resident and proportional kB.
_MAPPING = r"^([0-9a-f]+)-([0-9a-f]+) \S+ (\S+ \S+ [1-9]\d* .*)\n(?:[A-Z]\w+: .*\n)*?Rss:\s+(\d+) kB\nPss:\s+(\d+) kB"


class ResidentMemory(NamedTuple):
    """Resident bytes of the process, now and at their peak."""

    now: int
    peak: int


def resident_memory() -> ResidentMemory | None:
    """Return what this process holds; None where the system does not tell (Windows).

    On Linux by /proc, not by getrusage: a process that was started by a larger one inherits its peak there. Elsewhere what is
    resident now is not told, and the peak stands for it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        kilobytes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status.read_text(), re.MULTILINE))
        return ResidentMemory(int(kilobytes["VmRSS"]) << 10, int(kilobytes["VmHWM"]) << 10)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak << 10
    return ResidentMemory(peak_bytes, peak_bytes)


def mapped_twice_bytes() -> int | None:
    """Return how many of the bytes resident now are counted a second time: a file's page counts as often as it is mapped.

    It is the excess of resident over proportional memory in parts of files that this process maps more than once, so it is
    too much where another process maps them too. None where the system does not tell (only Linux does, not all kernels).
    """
    try:
        mappings = Path("/proc/self/smaps").read_text(errors="replace")
    except OSError:
        return None
    excess: dict[tuple[str, int], list[int]] = {}
    for first, last, file, resident, proportional in re.findall(_MAPPING, mappings, re.MULTILINE):
        # Two mappings of a part need not have pages in common: each may have been read elsewhere.
        part = (file, int(last, 16) - int(first, 16))
        excess.setdefault(part, []).append(int(resident) - int(proportional))
    return sum(sum(one) for one in excess.values() if len(one) > 1) << 10
