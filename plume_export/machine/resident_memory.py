"""How much memory this process holds."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

# A mapping of a file in /proc/self/smaps: addresses; offset, device, inode and path; resident and proportional kB.
_MAPPING = r"^([0-9a-f]+)-([0-9a-f]+) \S+ (\S+ \S+ [1-9]\d* .*)\n(?:[A-Z]\w+: .*\n)*?Rss:\s+(\d+) kB\nPss:\s+(\d+) kB"


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
    """Return the excess of resident over proportional memory in parts of files that are mapped more than once.

    A part that is mapped more than once need not have pages in common: each mapping may have been read elsewhere.
    """
    excess: dict[tuple[str, int], list[int]] = {}
    mappings = Path("/proc/self/smaps").read_text(errors="replace")
    for first, last, file, resident, proportional in re.findall(_MAPPING, mappings, re.MULTILINE):
        part = (file, int(last, 16) - int(first, 16))
        excess.setdefault(part, []).append(int(resident) - int(proportional))
    return sum(sum(one) for one in excess.values() if len(one) > 1) << 10
