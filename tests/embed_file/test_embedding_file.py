"""Files of embeddings, block by block."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from plume_export.bundle import check_writable
from plume_export.embed_file import check_output_file, embedding_file
from plume_export.embed_file.embedding_file import Block, write_embeddings, write_jsonl
from plume_export.errors import PlumeExportError

ROWS = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
BLOCKS = [Block([f"id {row}" for row in range(first, last)], ROWS[first:last]) for first, last in ((0, 3), (3, 4), (4, 7))]


def test_an_npy_is_numpys_own(tmp_path: Path) -> None:
    write_embeddings(BLOCKS, 7, 4, tmp_path / "out.npy")
    np.save(tmp_path / "wanted.npy", ROWS)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "wanted.npy").read_bytes()


def test_row_groups_have_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_file, "_ROW_GROUP", 4)
    write_embeddings(BLOCKS, 7, 4, tmp_path / "out.parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 3]
    table = file.read()
    assert table.column("id").to_pylist() == [f"id {row}" for row in range(7)]
    assert (np.array(table.column("embedding").to_pylist(), np.float32) == ROWS).all()


def test_ids_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A file's name may be any bytes."""
    name = b"caf\xe9 \xc3\xa9.png".decode("utf-8", "surrogateescape")
    file = io.BytesIO()
    write_jsonl([Block([name], ROWS[:1])], file)
    assert json.loads(file.getvalue())["id"] == "caf\\udce9 é.png"
    write_embeddings([Block([name], ROWS[:1])], 1, 4, tmp_path / "out.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("id").to_pylist() == ["caf\\udce9 é.png"]


@pytest.mark.parametrize("target", ["target.npy", "nowhere.npy"])
def test_a_link_is_not_replaced(tmp_path: Path, target: str) -> None:
    (tmp_path / "target.npy").touch()
    (tmp_path / "out.npy").symlink_to(target)
    for check in (check_output_file, check_writable):
        with pytest.raises(PlumeExportError, match=rf"a symbolic link to {target}(.|\n)*pass {tmp_path / target}, or remove"):
            check(tmp_path / "out.npy")


@pytest.mark.parametrize("output", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_streams_are_no_outputs(output: str) -> None:
    for check in (check_output_file, check_writable):
        with pytest.raises(PlumeExportError, match="is not a regular file, but a device, pipe or stream"):
            check(Path(output))


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out.npy").write_text("before")
    with pytest.raises(ZeroDivisionError):
        write_embeddings((1 / 0 for _ in range(1)), 7, 4, tmp_path / "out.npy")  # type: ignore[misc]
    assert [file.name for file in tmp_path.iterdir()] == ["out.npy"]
    assert (tmp_path / "out.npy").read_text() == "before"


def test_a_file_of_embeddings_is_no_input(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.touch()
    (tmp_path / "link.jsonl").symlink_to(output.name)
    for given in (output, tmp_path / "link.jsonl"):
        with pytest.raises(PlumeExportError, match="is also the input"):
            check_output_file(output, [given])
    check_output_file(output, [tmp_path, tmp_path / "missing", Path("a\0b"), Path("n" * 5000)])
