"""What this machine's processor computes exactly."""

import platform
from pathlib import Path

from .gpu import Read, text_of

PROCESSOR = Path("/proc/cpuinfo")


def sums_int8_exactly(read: Read = text_of) -> bool:
    """Whether ONNX Runtime's sums of uint8 by int8 are exact: on x86 without VNNI they saturate in 16 bits. Unknown is no."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    flags = read(PROCESSOR) or ""
    return "avx512_vnni" in flags or "avx_vnni" in flags
