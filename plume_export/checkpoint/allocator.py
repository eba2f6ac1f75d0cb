"""What glibc does with freed memory: give it back at once while a model is streamed, or keep it while one is trained.

The setting is the process's; elsewhere than on glibc nothing is done.
"""

import ctypes
import sys

# Options of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_THRESHOLD_BYTES = 1 << 20


def return_large_blocks_to_the_system() -> None:
    """Have glibc map every block above 1 MiB on its own, so that freeing it gives the memory back at once.

    By default glibc raises that threshold to 32 MiB as blocks are freed and keeps them in its heap: streaming the 2B model's
    layers then leaves 2 GB resident.
    """
    _mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def keep_freed_memory() -> None:
    """Have glibc map no blocks and never shrink its heap, for work that allocates the same large blocks again and again.

    By default every block above 32 MiB is mapped and its pages are faulted in anew: half of the time of a training step on
    videos.
    """
    _mallopt(_M_MMAP_MAX, 0)
    _mallopt(_M_TRIM_THRESHOLD, -1)


def _mallopt(option: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(option, value)
