"""Find the files that an ONNX graph reads weights from. Graphs are parsed here because the runtime does not install onnx.

Source: onnx.proto, whose field numbers are in _CHILDREN, and the wire format of Protocol Buffers.
"""

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from ..errors import BundleError
from .contained import check_plain_name, contained_file

# For each message: the fields that lead to tensors, and the message types that they contain.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_LOCATION_BYTES = 4096
_Data: TypeAlias = "bytes | mmap.mmap"


def check_external_data(directory: Path, name: str, listed: Collection[str] | None) -> None:
    """Raise BundleError unless a bundle's ONNX graph reads weights only from files that the manifest lists.

    If `listed` is None there is no manifest yet, and any file in the bundle is accepted.
    """
    for location in sorted(external_locations(contained_file(directory, name))):
        check_plain_name(directory, location)
        if listed is None:
            contained_file(directory, location)
        elif location not in listed:
            raise BundleError(
                f"{directory / name} reads weights from {location!r}, which the manifest does not list.",
                fix="do not use this bundle; build it again, or copy it from where it was built",
            )


def external_locations(graph_file: Path) -> set[str]:
    """Return the locations of all external data of a graph, in any subgraph. Raises BundleError if the file is corrupt."""
    if graph_file.stat().st_size == 0:
        return set()
    try:
        with graph_file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_locations(data))
    except (ValueError, IndexError):
        raise BundleError(f"{graph_file} is corrupt: it is not an ONNX graph.", fix="build the bundle again") from None


def _locations(data: _Data) -> Iterator[str]:
    messages = [("model", 0, len(data))]
    while messages:
        message, start, end = messages.pop()
        if message == "entry":
            entry = dict(_fields(data, start, end))
            if data[slice(*entry.get(_KEY, (0, 0)))] == b"location":
                begin, stop = entry.get(_VALUE, (0, 0))
                if stop - begin > _MOST_LOCATION_BYTES:
                    raise ValueError("the path of an external weight file is too long")
                yield data[begin:stop].decode()
            continue
        children = _CHILDREN[message]
        messages += ((children[field], *span) for field, span in _fields(data, start, end) if field in children)


def _fields(data: _Data, position: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the number, start and end of each length-delimited field between two positions. Other fields are skipped."""
    while position < end:
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _BYTES:
            length, position = _varint(data, position)
            yield tag >> 3, (position, position + length)
            position += length
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unsupported wire type {kind}")
        if position > end:
            raise ValueError("a field ends after its message")


def _varint(data: _Data, position: int) -> tuple[int, int]:
    """Return a number of up to 64 bits and the position after it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number has more than 64 bits")
