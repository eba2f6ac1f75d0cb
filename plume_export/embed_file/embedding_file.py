"""Write files of embeddings, block by block."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bundle import check_writable
from ..errors import MissingExtraError
from ..runtime.output_rows import OutputDtype, has_nan, rows_from_embeddings
from ..stages import FloatArray
from ..whole_file import replacing

OUTPUT_SUFFIXES = (".npy", ".jsonl", ".parquet")
_ROW_GROUP = 4096


class Block(NamedTuple):
    """Consecutive rows in float32 with their ids. A skipped input has a row of NaN."""

    ids: list[str]
    embeddings: FloatArray  # [inputs, hidden]


def check_output_file(output: Path, inputs: Sequence[Path] = ()) -> None:
    """Check, before any work is done, that embeddings can be written to `output`, which may be inside an embedded folder."""
    if output.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingExtraError("pyarrow", "parquet") from None
    check_writable(output, [given for given in inputs if os.path.isfile(given)], suffixes=OUTPUT_SUFFIXES)


def write_embeddings(
    blocks: Iterable[Block],
    inputs: int,
    dimension: int,
    output: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    dtype: OutputDtype = "float32",
) -> None:
    """Write .npy (row i is input i), .jsonl or .parquet (id and embedding, without skipped inputs), all or nothing.

    `settings` record how the inputs were read and embedded. They are stored as JSON in the metadata of .parquet, under
    "plume_export".
    """
    none = rows_from_embeddings(np.empty((0, dimension), np.float32), dtype)
    with replacing(output) as file:
        if output.suffix == ".npy":
            _write_npy(blocks, inputs, none, dtype, file)
        elif output.suffix == ".jsonl":
            write_jsonl(blocks, file, dtype)
        else:
            _write_parquet(blocks, none, dtype, file, settings or {})


def write_jsonl(blocks: Iterable[Block], file: IO[bytes], dtype: OutputDtype = "float32") -> None:
    """Write one {"id": ..., "embedding": [...]} per line."""
    for block in blocks:
        ids, embeddings = _embedded(block)
        for name, row in zip(ids, rows_from_embeddings(embeddings, dtype), strict=True):
            is_float = row.dtype.kind == "f"
            # str gives the fewest digits that identify a value in its dtype.
            values = [float(str(value)) for value in row] if is_float else row.tolist()
            file.write(json.dumps({"id": name, "embedding": values}, ensure_ascii=False).encode() + b"\n")


def _write_npy(blocks: Iterable[Block], inputs: int, none: NDArray[Any], dtype: OutputDtype, file: IO[bytes]) -> None:
    shape = (inputs, none.shape[1])
    header = {"descr": np.lib.format.dtype_to_descr(none.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in blocks:
        assert has_nan(dtype) or not np.isnan(block.embeddings).any()
        file.write(np.ascontiguousarray(rows_from_embeddings(block.embeddings, dtype)).data)


def _write_parquet(
    blocks: Iterable[Block], none: NDArray[Any], dtype: OutputDtype, file: IO[bytes], settings: Mapping[str, Any]
) -> None:
    import pyarrow
    import pyarrow.parquet

    kind = pyarrow.list_(pyarrow.from_numpy_dtype(none.dtype), none.shape[1])
    schema = pyarrow.schema({"id": pyarrow.string(), "embedding": kind}, {"plume_export": json.dumps(settings)})
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for ids, embeddings in _row_groups(blocks):
            values = rows_from_embeddings(embeddings, dtype)
            rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), type=kind)
            writer.write_table(pyarrow.table([pyarrow.array(ids, pyarrow.string()), rows], schema=schema))


def _row_groups(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield blocks of embedded rows, large enough to be read efficiently."""
    ids: list[str] = []
    parts: list[FloatArray] = []
    for block in blocks:
        embedded = _embedded(block)
        ids += embedded.ids
        parts.append(embedded.embeddings)
        if len(ids) >= _ROW_GROUP:
            yield Block(ids, np.concatenate(parts))
            ids, parts = [], []
    if ids:
        yield Block(ids, np.concatenate(parts))


def _embedded(block: Block) -> Block:
    """Return the rows that were not skipped. Bytes in ids that are not valid text are escaped."""
    is_there = ~np.isnan(block.embeddings[:, 0])
    ids = [name.encode("utf-8", "backslashreplace").decode() for name, there in zip(block.ids, is_there, strict=True) if there]
    return Block(ids, block.embeddings[is_there])
