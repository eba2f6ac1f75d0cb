"""How fast memory is read."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...errors import PlumeExportError
from ...machine.gpu import system_memory
from ...runtime.cuda.device import CudaDevice
from .best_of import best_seconds

# Far more than any cache holds, and never much of what is free.
_LEAST_BYTES, _MOST_BYTES = 256 << 20, 2 << 30
_SHARE_OF_FREE = 8


def host_read_bytes_per_s(threads: int) -> float:
    """Return the best of several passes over large arrays, one a thread. Raises PlumeExportError if memory is short.

    Both reductions read every byte once, release Python's lock and have no more to do than to read.
    """
    memory = system_memory()
    if memory is None:
        raise PlumeExportError("This system does not tell how much memory is free.")
    size = min(memory.free_bytes // _SHARE_OF_FREE, _MOST_BYTES)
    if size < _LEAST_BYTES:
        raise PlumeExportError(
            f"{memory.free_bytes >> 20} MiB of memory are free; an eighth of it, which would be read, is below "
            f"{_LEAST_BYTES >> 20} MiB."
        )
    arrays = [np.ones(size // threads // 4, np.float32) for _ in range(threads)]
    integers = [array[: len(array) // 2 * 2].view(np.int64) for array in arrays]
    with ThreadPoolExecutor(threads) as pool:
        passes = (
            lambda: list(pool.map(np.max, arrays)),
            lambda: list(pool.map(np.bitwise_or.reduce, integers)),
        )
        seconds = min(best_seconds(one_pass) for one_pass in passes)
    return sum(array.nbytes for array in arrays) / seconds


def copied_bytes_per_s() -> float:
    """Return how fast a GPU reads and writes its memory, together, in copies within it. Raises PlumeExportError."""
    device = CudaDevice("gpu")
    try:
        size = min(device.free_bytes() // _SHARE_OF_FREE, _MOST_BYTES) // 2
        source, target = (device.allocate(size, "measuring its memory") for _ in range(2))

        def copy() -> None:
            device.copy(source, target, size)
            device.wait()

        return 2 * size / best_seconds(copy)
    finally:
        device.close()
