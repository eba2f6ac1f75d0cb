"""Safetensors files: a header with the dtype, shape and bytes of every tensor, then the bytes.

Graphs refer to a tensor by its byte range in the file, so ranges are counted from the start of the file. Needs neither torch
nor safetensors. Source: https://github.com/huggingface/safetensors, section "Format".
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from .errors import BundleError

# ONNX Runtime maps external data from the file; tensors start on a page so that it need not copy them.
PAGE_BYTES = 4096
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "uint8": "U8"}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


class TensorType(NamedTuple):
    """Dtype (such as "float16") and shape of a tensor."""

    dtype: str
    shape: Sequence[int]


class StoredTensor(NamedTuple):
    """A tensor in a file. `offset` and `length` are bytes, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class FileRange(NamedTuple):
    """Consecutive bytes of a file."""

    offset: int
    length: int


class Appended(NamedTuple):
    """Where `append_parts` put each part, and by how many bytes the tensors before moved."""

    offsets: list[int]
    shift: int


class _Entry(msgspec.Struct):
    """A tensor in the header. `data_offsets` are its start and end, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def write_header(
    file: IO[bytes],
    tensors: Mapping[str, TensorType],
    *,
    alignment: int = PAGE_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, StoredTensor]:
    """Write the header of tensors that follow it in their order, without gaps. Return their ranges.

    The first tensor starts at a multiple of `alignment` bytes.
    """
    entries: dict[str, _Entry] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * _ITEM_BYTES[dtype]
        entries[name] = _Entry(_CODES[dtype], tuple(shape), (start, end))
    header = _encoded(metadata, entries, alignment)
    file.write(header)
    return _ranges(entries, len(header))


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name. Raises BundleError for a file that is corrupt."""
    with file.open("rb") as stream:
        _, entries = _read(stream, file)
        return _ranges(entries, stream.tell())


def change_dtypes(file: Path, dtypes: Mapping[str, str]) -> None:
    """Change the dtypes in the header, to others of the same size. The data stays.

    Raises BundleError for a corrupt file and for a tensor in a dtype of another size.
    """
    with file.open("r+b") as stream:
        metadata, entries = _read(stream, file)
        data_start = stream.tell()
        for name, dtype in dtypes.items():
            old = _DTYPES[entries[name].dtype]
            if _ITEM_BYTES[dtype] != _ITEM_BYTES[old]:
                raise BundleError(
                    f"{file} has {name} in {old}; expected a dtype of the size of {dtype}.", fix="build the bundle again"
                )
            entries[name].dtype = _CODES[dtype]
        header = _encoded(metadata, entries, data_start)
        assert len(header) == data_start, (len(header), data_start)
        stream.seek(0)
        stream.write(header)


def append_parts(file: Path, name: str, source: Path, parts: Sequence[FileRange]) -> Appended:
    """Add a uint8 tensor after the others: parts of another file, each of which starts on a page.

    The tensors before move, because the header grows. Takes the file's size on disk twice, and memory for one part. Raises
    BundleError for a corrupt file.
    """
    with file.open("rb") as old, source.open("rb") as given:
        metadata, entries = _read(old, file)
        data_start = old.tell()
        end = file.stat().st_size - data_start
        starts, whole = list[int](), end
        for part in parts:
            starts.append(whole + -whole % PAGE_BYTES)
            whole = starts[-1] + part.length
        entries[name] = _Entry(_CODES["uint8"], (whole - end,), (end, whole))
        header = _encoded(metadata, entries, PAGE_BYTES)
        rewritten = file.with_name(f"{file.name}.new")
        with rewritten.open("wb") as new:
            new.write(header)
            shutil.copyfileobj(old, new, 1 << 20)
            for start, part in zip(starts, parts, strict=True):
                new.seek(len(header) + start)
                given.seek(part.offset)
                new.write(given.read(part.length))
    rewritten.replace(file)
    return Appended([len(header) + start for start in starts], len(header) - data_start)


def _read(stream: IO[bytes], file: Path) -> tuple[dict[str, str] | None, dict[str, _Entry]]:
    """Return the metadata and the tensors. The stream is then at the end of the header."""
    size = file.stat().st_size
    try:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > size - _LENGTH_BYTES:
            raise ValueError(f"the header has {length:,} bytes, the file {size:,}")
        header: dict[str, Any] = msgspec.json.decode(stream.read(length), type=dict[str, Any])
        metadata = msgspec.convert(header.pop(_METADATA, None), dict[str, str] | None)
        entries = msgspec.convert(header, dict[str, _Entry])
        for name, entry in entries.items():
            start, end = entry.data_offsets
            if entry.dtype not in _DTYPES or not 0 <= start <= end <= size - _LENGTH_BYTES - length:
                raise ValueError(f"{name} is {entry.dtype} from byte {start:,} to {end:,}")
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise BundleError(f"{file} is not a complete weight file: {error}.", fix="build the bundle again") from None
    return metadata, entries


def _ranges(entries: Mapping[str, _Entry], data_start: int) -> dict[str, StoredTensor]:
    ranges = {}
    for name, entry in entries.items():
        start, end = entry.data_offsets
        ranges[name] = StoredTensor(_DTYPES[entry.dtype], entry.shape, data_start + start, end - start)
    return ranges


def _encoded(metadata: Mapping[str, str] | None, entries: Mapping[str, _Entry], alignment: int) -> bytes:
    """Return the length and the header, padded with spaces so that the tensors start at a multiple of `alignment`."""
    text = msgspec.json.encode({**({} if metadata is None else {_METADATA: metadata}), **entries})
    text += b" " * (-(_LENGTH_BYTES + len(text)) % alignment)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text
