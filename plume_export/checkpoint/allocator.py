"""Settings of glibc's allocator for the whole process. Without glibc they do nothing."""

import ctypes
import sys

# Option of mallopt, from glibc's malloc.h.
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 1 << 20


def return_large_blocks_to_the_system() -> None:
    """Make glibc map every block above 1 MiB separately, so that the memory is returned to the system when the block is freed.

    By default glibc raises this threshold, up to 32 MiB, as blocks are freed, and keeps smaller blocks in its heap. Streaming
    the layers of the 2B model then leaves 2 GB resident.
    """
    set_malloc_option(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def set_malloc_option(option: int, value: int) -> None:
    """Call glibc's mallopt."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has no mallopt
    if mallopt is not None:
        mallopt(option, value)
