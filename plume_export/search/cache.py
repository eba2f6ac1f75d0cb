"""Embeddings that are already known, by bundle and content: an SQLite file in the user's cache directory."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np

from ..bundle import sha256_of_file
from ..errors import PlumeExportError
from ..stages import FloatArray

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS embeddings (bundle TEXT, sha256 TEXT, embedding BLOB, PRIMARY KEY (bundle, sha256));
"""


def default_cache_file() -> Path:
    """Return the file in the user's cache directory."""
    from platformdirs import user_cache_path

    return user_cache_path("plume-export", appauthor=False) / "embeddings.sqlite"


class EmbeddingCache:
    """Remembers the hash of a file by path, size and time, and the embedding of a content by bundle. A context manager.

    Every method raises PlumeExportError if the file can not be read or written or is no cache.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60)
            self._connection.executescript(_SCHEMA)

    def content_hashes(self, files: Sequence[Path]) -> dict[Path, str]:
        """Return the sha256 of every file; only files that are new or changed are read. Unreadable files are left out."""
        hashes: dict[Path, str] = {}
        with self._errors():
            for file in files:
                with suppress(OSError):
                    hashes[file] = self._content_hash(file)
            self._connection.commit()
        return hashes

    def embeddings(self, bundle: str, hashes: Iterable[str]) -> dict[str, FloatArray]:
        """Return the known embeddings [hidden] by content hash."""
        rows = (
            (key, self._one("SELECT embedding FROM embeddings WHERE bundle = ? AND sha256 = ?", bundle, key)) for key in hashes
        )
        return {key: np.frombuffer(row[0], np.float32) for key, row in rows if row is not None}

    def add_embeddings(self, bundle: str, embeddings: Mapping[str, FloatArray]) -> None:
        """Store embeddings [hidden] by content hash, all or nothing."""
        rows = [(bundle, key, embedding.astype(np.float32).tobytes()) for key, embedding in embeddings.items()]
        with self._errors():
            self._connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
            self._connection.commit()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "EmbeddingCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _content_hash(self, file: Path) -> str:
        name, status = str(file.resolve()), file.stat()
        row = self._one(
            "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ?", name, status.st_size, status.st_mtime_ns
        )
        if row is not None:
            return str(row[0])
        digest = sha256_of_file(file)
        entry = (name, status.st_size, status.st_mtime_ns, digest)
        self._connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", entry)
        return digest

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise PlumeExportError(
                f"The embedding cache {self._path} can not be used: {error}.",
                fix="free space, delete the file, or pass another --cache",
            ) from error

    def _one(self, statement: str, *values: object) -> tuple[bytes] | None:
        with closing(self._connection.execute(statement, values)) as cursor:
            row: tuple[bytes] | None = cursor.fetchone()
            return row
