"""Tell glibc what to do with freed memory: return it at once while a model is streamed, or keep it while a model is trained.

The setting applies to the whole process. Without glibc these functions do nothing.
"""

import ctypes
import sys

# Options of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_THRESHOLD_BYTES = 1 << 20


def return_large_blocks_to_the_system() -> None:
    """Make glibc map every block above 1 MiB separately, so that the memory is returned to the system when the block is freed.

    By default glibc raises this threshold, up to 32 MiB, as blocks are freed, and keeps smaller blocks in its heap. Streaming
    the layers of the 2B model then leaves 2 GB resident.
    """
    _mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def keep_freed_memory() -> None:
    """Make glibc map no blocks and never shrink its heap, for work that repeatedly allocates the same large blocks.

    By default every block above 32 MiB is mapped anew, which causes a page fault per page. On videos these faults take half the
    time of a training step.
    """
    _mallopt(_M_MMAP_MAX, 0)
    _mallopt(_M_TRIM_THRESHOLD, -1)


def _mallopt(option: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has no mallopt
    if mallopt is not None:
        mallopt(option, value)
