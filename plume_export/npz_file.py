"""Read an .npz file from an untrusted source: only arrays of numbers, with bounded memory."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_SUFFIX = ".npy"
_NUMBERS = "biuf"  # kinds of numpy's dtypes
# Maximum ratio of expanded to compressed size. Our own files stay far below. Small arrays may exceed it.
_MOST_EXPANSION, _SMALL_BYTES = 64, 1 << 26


def read_npz(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays by name. Pickles are never loaded.

    Raises OSError if the file cannot be opened. Raises ValueError with the reason if it is not a complete archive of arrays of
    numbers, or would take much more memory than the file.
    """
    with file.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                _check_expansion(archive, file.stat().st_size)
                return {info.filename.removesuffix(_SUFFIX): _read_array(archive, info) for info in archive.infolist()}
        except ValueError:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise a dozen exception types for corrupt data
            raise ValueError(str(error) or type(error).__name__) from error


def _check_expansion(archive: zipfile.ZipFile, file_bytes: int) -> None:
    array_bytes = sum(info.file_size for info in archive.infolist())
    if array_bytes > max(_SMALL_BYTES, _MOST_EXPANSION * file_bytes):
        raise ValueError(f"its {file_bytes:,} bytes would expand to {array_bytes:,} (a decompression bomb?)")


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, is_fortran, dtype = _read_header(member)
        expected = info.file_size - member.tell()
        if dtype.kind not in _NUMBERS:
            raise ValueError(f"{info.filename} contains {dtype}; expected numbers")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != expected:
            raise ValueError(f"{info.filename} has {expected} bytes for {dtype} {list(shape)}")
        data = bytearray(member.read())
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(member)
    raise ValueError(f"{version} is a .npy version for structured arrays; expected an array of numbers")
