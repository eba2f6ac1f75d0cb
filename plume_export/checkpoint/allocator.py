"""Set what glibc does with freed memory: return it at once while a model is streamed, or keep it while a model is trained.

The setting applies to the whole process. Without glibc these functions do nothing.
"""

import ctypes
import sys

# Options of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_THRESHOLD_BYTES = 1 << 20


def return_large_blocks_to_the_system() -> None:
    """Make glibc map every block above 1 MiB separately, so that freeing it returns the memory at once.

    By default glibc raises that threshold to 32 MiB as blocks are freed and keeps the memory in its heap. Streaming the layers
    of the 2B model then leaves 2 GB resident.
    """
    _mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def keep_freed_memory() -> None:
    """Make glibc map no blocks and never shrink its heap, for work that repeatedly allocates the same large blocks.

    By default every block above 32 MiB is mapped, and its pages are faulted in each time. That takes half the time of a
    training step on videos.
    """
    _mallopt(_M_MMAP_MAX, 0)
    _mallopt(_M_TRIM_THRESHOLD, -1)


def _mallopt(option: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has no mallopt
    if mallopt is not None:
        mallopt(option, value)
