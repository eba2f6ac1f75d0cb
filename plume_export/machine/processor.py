"""What this machine's processor computes exactly."""

import platform
from pathlib import Path


def sums_int8_exactly() -> bool:
    """Whether ONNX Runtime's sums of uint8 by int8 are exact: on x86 without VNNI they saturate in 16 bits. Unknown is no."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_vnni" in processor or "avx_vnni" in processor
