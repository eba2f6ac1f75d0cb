"""How much memory this process holds."""

import re
import sys
from pathlib import Path
from typing import NamedTuple


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
