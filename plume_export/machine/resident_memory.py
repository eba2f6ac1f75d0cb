"""How much memory this process holds."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

# A mapping of a file in /proc/self/smaps: addresses; offset, device, inode and path; resident kB.
_MAPPING = r"^([0-9a-f]+)-([0-9a-f]+) \S+ (\S+ \S+ [1-9]\d* .*)\n(?:[A-Z]\w+: .*\n)*?Rss:\s+(\d+) kB"


class ResidentMemory(NamedTuple):
    """Resident bytes of the process, now and at their peak.

    The system counts a page of a file as often as it is mapped. `mapped_twice` of `now` are counted a second time so.
    """

    now: int
    peak: int
    mapped_twice: int


def resident_memory() -> ResidentMemory | None:
    """Return what this process holds; None where the system does not tell (Windows).

    On Linux by /proc, not by getrusage: a process that was started by a larger one inherits its peak there. Elsewhere what is
    resident now is not told, and the peak stands for it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        kilobytes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status.read_text(), re.MULTILINE))
        return ResidentMemory(int(kilobytes["VmRSS"]) << 10, int(kilobytes["VmHWM"]) << 10, _mapped_twice_bytes())
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak << 10
    return ResidentMemory(peak_bytes, peak_bytes, 0)


def _mapped_twice_bytes() -> int:
    """Return what is resident of parts of files that were mapped before, by the same offset and length."""
    largest: dict[tuple[str, ...], int] = {}
    total = 0
    mappings = Path("/proc/self/smaps").read_text(errors="replace")
    for first, last, file, resident in re.findall(_MAPPING, mappings, re.MULTILINE):
        part = (file, str(int(last, 16) - int(first, 16)))
        total += int(resident)
        largest[part] = max(largest.get(part, 0), int(resident))
    return (total - sum(largest.values())) << 10
