"""Keep freed tensors from staying resident while a model is streamed layer by layer."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # from glibc's malloc.h
_THRESHOLD_BYTES = 1 << 20


def return_large_blocks_to_the_system() -> None:
    """Have glibc map every block above 1 MiB on its own, so that freeing it gives the memory back at once.

    By default glibc raises that threshold to 32 MiB as blocks are freed and keeps them in its heap: streaming the 2B model's
    layers then leaves 2 GB resident. The setting is the process's; elsewhere than on glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
