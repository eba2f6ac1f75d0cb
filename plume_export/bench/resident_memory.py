"""How much memory this process holds."""

import re
import sys
from pathlib import Path

from .protocol import Memory


def memory_of_this_process() -> Memory:
    """Return resident bytes, now and at their peak.

    On Linux by /proc, not by getrusage: a process that was started by a larger one inherits its peak there.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        kilobytes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status.read_text(), re.MULTILINE))
        return Memory(resident=int(kilobytes["VmRSS"]) << 10, peak=int(kilobytes["VmHWM"]) << 10)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak << 10
    return Memory(resident=peak_bytes, peak=peak_bytes)  # what is resident now is not told there
