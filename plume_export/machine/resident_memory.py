"""Memory use of this process."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

# A mapped file in /proc/self/smaps: addresses; offset, device, inode and path; resident and proportional kB.
_MAPPING = r"^([0-9a-f]+)-([0-9a-f]+) \S+ (\S+ \S+ [1-9]\d* .*)\n(?:[A-Z]\w+: .*\n)*?Rss:\s+(\d+) kB\nPss:\s+(\d+) kB"


class ResidentMemory(NamedTuple):
    """Resident bytes of the process: now and at peak."""

    now: int
    peak: int


def resident_memory() -> ResidentMemory | None:
    """Return the resident memory of this process; None if the system does not report it (Windows).

    Linux uses /proc instead of getrusage, because a process started by a larger one inherits its peak in getrusage. On other
    systems the current value is not reported, and the peak replaces it.
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
    """Return the bytes of resident memory that are counted more than once, because a file is mapped more than once.

    It is the difference between resident and proportional memory, for the parts of files that this process maps more than once.
    It is too large if another process maps them too. Returns None if the system does not report it (only Linux does, and not
    all kernels).
    """
    try:
        mappings = Path("/proc/self/smaps").read_text(errors="replace")
    except OSError:
        return None
    excess: dict[tuple[str, int], list[int]] = {}
    for first, last, file, resident, proportional in re.findall(_MAPPING, mappings, re.MULTILINE):
        # Two mappings of a part may have no resident pages in common: each may have been read in other places.
        part = (file, int(last, 16) - int(first, 16))
        excess.setdefault(part, []).append(int(resident) - int(proportional))
    return sum(sum(one) for one in excess.values() if len(one) > 1) << 10
