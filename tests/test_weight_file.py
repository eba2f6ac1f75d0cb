"""Headers of safetensors files, against the library, and the changes made to such files."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from plume_export.errors import BundleError
from plume_export.weight_file import (
    PAGE_BYTES,
    FileRange,
    StoredTensor,
    TensorType,
    append_parts,
    change_dtypes,
    read_header,
    write_header,
)

INTEGERS = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
HALVES = np.linspace(-1, 1, 10).astype(np.float16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """As safetensors itself writes it, metadata included."""
    save_file({"integers": INTEGERS, "halves": HALVES}, tmp_path / "weights", {"made": "here"})
    return tmp_path / "weights"


def header_of(file: Path) -> dict[str, dict[str, str]]:
    data = file.read_bytes()
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header


def test_ranges_are_those_of_the_bytes(file: Path) -> None:
    data, tensors = file.read_bytes(), read_header(file)
    assert set(tensors) == {"integers", "halves"}
    for name, array in (("integers", INTEGERS), ("halves", HALVES)):
        dtype, shape, offset, length = tensors[name]
        assert (dtype, shape) == (str(array.dtype), array.shape)
        assert data[offset : offset + length] == array.tobytes()


@pytest.mark.parametrize("alignment", [8, PAGE_BYTES])
def test_library_reads_what_is_written(tmp_path: Path, alignment: int) -> None:
    file = tmp_path / "weights"
    with file.open("wb") as stream:
        types = {name: TensorType(str(array.dtype), array.shape) for name, array in (("z", INTEGERS), ("a", HALVES))}
        ranges = write_header(stream, types, alignment=alignment, metadata={"format": "pt"})
        stream.write(INTEGERS.tobytes() + HALVES.tobytes())
    assert ranges == read_header(file)
    assert list(ranges) == ["z", "a"]
    assert ranges["z"].offset % alignment == 0
    assert header_of(file)["__metadata__"] == {"format": "pt"}
    stored = load_file(file)
    np.testing.assert_array_equal(stored["z"], INTEGERS)
    np.testing.assert_array_equal(stored["a"], HALVES)


def test_header_of_nothing() -> None:
    file = io.BytesIO()
    assert write_header(file, {}, alignment=8) == {}
    assert file.getvalue() == b"\x08\0\0\0\0\0\0\0{}      "


def test_dtype_changes_in_place(file: Path) -> None:
    before, size = read_header(file), file.stat().st_size
    change_dtypes(file, {"integers": "uint8"})
    assert file.stat().st_size == size
    assert read_header(file) == {**before, "integers": before["integers"]._replace(dtype="uint8")}
    np.testing.assert_array_equal(load_file(file)["integers"], INTEGERS.view(np.uint8))
    assert header_of(file)["__metadata__"] == {"made": "here"}


def test_dtype_of_another_size_is_an_error_that_changes_nothing(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(BundleError, match="has halves in float16; expected a dtype of the size of uint8"):
        change_dtypes(file, {"integers": "uint8", "halves": "uint8"})
    assert file.read_bytes() == before


def test_parts_of_another_file_are_appended_on_pages(file: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(100)))
    before = read_header(file)
    offsets, shift = append_parts(file, "added", source, [FileRange(10, 5), FileRange(50, 20)])
    data, after = file.read_bytes(), read_header(file)
    assert [offset % PAGE_BYTES for offset in offsets] == [0, 0]
    assert [data[offset : offset + length] for offset, length in zip(offsets, (5, 20), strict=True)] == [
        bytes(range(10, 15)),
        bytes(range(50, 70)),
    ]
    for name, tensor in before.items():
        assert after[name] == tensor._replace(offset=tensor.offset + shift)
    assert after["added"] == StoredTensor("uint8", (after["added"].length,), *after["added"][2:])
    stored = load_file(file)
    np.testing.assert_array_equal(stored["halves"], HALVES)
    np.testing.assert_array_equal(stored["integers"], INTEGERS)
    assert header_of(file)["__metadata__"] == {"made": "here"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "weights"]


def raw(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff" * 8,
        raw(b"{}")[:-1],
        raw(b"[{}]"),
        raw(b'{"'),
        raw(b'{"a":{"b":""}}'),
        raw(b'{"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}', b"123"),
        raw(b'{"a":{"dtype":"I8","shape":[4],"data_offsets":[4,0]}}', b"1234"),
        raw(b'{"a":{"dtype":"I9","shape":[4],"data_offsets":[0,4]}}', b"1234"),
    ],
)
def test_damaged_header_is_an_error_that_names_the_file(tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(damaged)
    with pytest.raises(BundleError, match=r"weights\.safetensors is not a complete weight file"):
        read_header(file)
