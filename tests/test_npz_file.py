"""Arrays of numbers are read as they were written; anything else is refused, and no pickle is loaded."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from plume_export.npz_file import read_npz


class Canary:
    """Its pickle, when loaded, writes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self._file, "loaded")


def write(file: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path: Path, save: object) -> None:
    arrays = {
        "fortran": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "scalar": np.array(1.5),
        "empty": np.empty((0, 4), np.float16),
        "a/b": np.arange(3),
    }
    save(tmp_path / "a.npz", **arrays)  # type: ignore[operator]
    read = read_npz(tmp_path / "a.npz")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([Canary(tmp_path / "canary")], object))
    with pytest.raises(ValueError, match="contains object; expected numbers"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("<f4", (2**40,)) + bytes(16), "has 16 bytes for float32"),
        (header("<f4", (-2, -2)) + bytes(16), "has 16 bytes for float32"),
        (header("<U4", (1,)) + bytes(16), "expected numbers"),
        (header("<f4", (4,)).replace(b"shape", b"\0hape") + bytes(16), "Cannot parse header"),
        (b"", "EOF"),
        (b"\x93NUMPY\x01\x00", "EOF"),
    ],
)
def test_a_damaged_array(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_npz(write(tmp_path / "a.npz", a=content))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="would expand to 100,000,000 "):
        read_npz(write(tmp_path / "a.npz", a=bytes(100_000_000)))


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a zip file"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "missing.npz")
