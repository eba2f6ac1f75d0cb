"""Many inputs in, one file of embeddings out."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np

from .errors import InputError, MissingExtraError, PlumeExportError
from .preprocess import Item, PreparedInput, item_from_json
from .runtime.embedder import Embedder
from .stages import FloatArray
from .whole_file import replacing

OnError = Literal["fail", "skip"]
OUTPUT_SUFFIXES = (".npy", ".jsonl", ".parquet")
_VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"}


@dataclass(frozen=True)
class Source:
    """One input before it is read: its id, and how to read it. `read` raises InputError."""

    id: str
    read: Callable[[], Item]


@dataclass
class EmbedResult:
    """Embeddings by input. A skipped input has a row of NaN, so that row i stays input i, and its reason in `skipped`."""

    ids: list[str]
    embeddings: FloatArray  # [inputs, hidden]
    skipped: dict[str, str] = field(default_factory=dict)


def sources_from_file(path: Path) -> list[Source]:
    """Return one source a line of a JSON lines file; blank lines are left out. Raises InputError if it can not be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The inputs file {path} can not be read: {error}.", fix="pass a UTF-8 JSON lines file") from None
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [Source(_line_id(line, number), _LineReader(path, number, line)) for number, line in numbered]


def sources_from_arguments(files: Sequence[str], text: str | None) -> list[Source]:
    """Return one source a file, each together with `text`; without files, the text alone."""
    if not files:
        return [Source("0", lambda: Item(text=text or ""))]
    return [Source(file, _FileReader(file, text or "")) for file in files]


def embed_sources(
    embedder: Embedder,
    sources: Sequence[Source],
    *,
    batch_size: int | None,
    on_error: OnError,
    advance: Callable[[int], None] = lambda _: None,
) -> EmbedResult:
    """Embed all sources. With `on_error="skip"` a bad input is recorded and the others go on; with "fail" it raises."""
    result = EmbedResult([source.id for source in sources], np.full((len(sources), embedder.dimension), np.nan, np.float32))
    rows: list[int] = []

    def prepared() -> Iterator[PreparedInput]:
        for row, source in enumerate(sources):
            try:
                item = embedder.prepare(source.read())
            except InputError as error:
                if on_error == "fail":
                    raise InputError(f"input {source.id!r}: {error}") from error
                result.skipped[source.id] = str(error)
                advance(1)
                continue
            rows.append(row)
            yield item

    done = 0
    for embeddings in embedder.embed_batches(prepared(), batch_size=batch_size):
        result.embeddings[rows[done : done + len(embeddings)]] = embeddings
        done += len(embeddings)
        advance(len(embeddings))
    return result


def check_output_file(output: Path) -> None:
    """Raise unless embeddings can be written to `output`, before any work is done."""
    if output.suffix not in OUTPUT_SUFFIXES:
        raise PlumeExportError(
            f"The output {output} ends in {output.suffix or 'nothing'!r}.", fix=f"end it in one of {', '.join(OUTPUT_SUFFIXES)}"
        )
    if output.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingExtraError("pyarrow", "parquet") from None
    check_writable(output)


def check_writable(output: Path) -> None:
    """Raise unless a file can be written to `output`, before any work is done."""
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK) or output.is_dir():
        raise PlumeExportError(f"{output} can not be written.", fix="choose a file in a directory that is there and writable")


def write_embeddings(result: EmbedResult, output: Path) -> None:
    """Write .npy (row i is input i), .jsonl or .parquet (id and embedding; skipped inputs left out), all or nothing."""
    writers = {".npy": _write_npy, ".jsonl": write_jsonl, ".parquet": _write_parquet}
    with replacing(output) as file:
        writers[output.suffix](result, file)


def write_jsonl(result: EmbedResult, file: IO[bytes]) -> None:
    """Write one {"id": ..., "embedding": [...]} a line."""
    for name, embedding in _embedded(result):
        line = {"id": name, "embedding": [float(str(value)) for value in embedding]}  # the shortest digits of a float32
        file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _embedded(result: EmbedResult) -> Iterator[tuple[str, FloatArray]]:
    for name, embedding in zip(result.ids, result.embeddings, strict=True):
        if not np.isnan(embedding[0]):
            yield name, embedding


def _write_npy(result: EmbedResult, file: IO[bytes]) -> None:
    np.save(file, result.embeddings)


def _write_parquet(result: EmbedResult, file: IO[bytes]) -> None:
    import pyarrow
    import pyarrow.parquet

    rows: Iterable[tuple[str, FloatArray]] = list(_embedded(result))
    dimension = result.embeddings.shape[1]
    columns = {
        "id": pyarrow.array([name for name, _ in rows], pyarrow.string()),
        "embedding": pyarrow.array([row for _, row in rows], pyarrow.list_(pyarrow.float32(), dimension)),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), file)


@dataclass(frozen=True)
class _LineReader:
    path: Path
    number: int
    line: str

    def __call__(self) -> Item:
        try:
            return item_from_json(self.line, self.path.parent)
        except InputError as error:
            raise InputError(f"{self.path} line {self.number}: {error}") from None


@dataclass(frozen=True)
class _FileReader:
    file: str
    text: str

    def __call__(self) -> Item:
        if Path(self.file).suffix.lower() in _VIDEO_SUFFIXES:
            return Item(text=self.text, video=self.file)
        return Item(text=self.text, images=(self.file,))


def _line_id(line: str, number: int) -> str:
    """The line's own id, or its number where it has none or can not be read."""
    try:
        value = json.loads(line).get("id")
    except (ValueError, AttributeError):
        value = None
    return f"line {number}" if value is None else str(value)
