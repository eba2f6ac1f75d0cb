"""Embeddings that are already known, by bundle and content: an SQLite file in the user's cache directory."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import sha256_of_file
from ..errors import PlumeExportError
from ..stages import FloatArray

_VERSION = 1
_SCHEMA = """
CREATE TABLE files (path BLOB PRIMARY KEY, state TEXT, sha256 TEXT);
CREATE TABLE embeddings (bundle TEXT, sha256 TEXT, embedding BLOB, PRIMARY KEY (bundle, sha256));
"""
# A file that was changed so lately may be changed again within the resolution of its time.
_SETTLED_SECONDS = 2
_COMMIT_FILES = 256


def default_cache_file() -> Path:
    """Return the file in the user's cache directory."""
    from platformdirs import user_cache_path

    return user_cache_path("plume-export", appauthor=False) / "embeddings.sqlite"


class EmbeddingCache:
    """Remembers the hash of a file by its path and state, and the embedding of a content by bundle. A context manager.

    Every method raises PlumeExportError if the file can not be read or written or is no cache.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsaved = 0
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60)
            self._check_version()

    def content_hash(self, file: Path) -> str:
        """Return the sha256 of a file, which is read only if it is new or changed. Raises OSError if it can not be."""
        name, state = os.fsencode(file.resolve()), _state(file)
        with self._errors():
            row = self._one("SELECT sha256 FROM files WHERE path = ? AND state = ?", name, state)
        if row is not None:
            return str(row[0])
        digest = sha256_of_file(file)
        if time.time() - file.stat().st_mtime > _SETTLED_SECONDS:
            with self._errors():
                self._connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (name, state, digest))
                self._unsaved += 1
                if self._unsaved == _COMMIT_FILES:
                    self.save()
        return digest

    def embeddings(self, bundle: str, hashes: Iterable[str], dimension: int) -> dict[str, FloatArray]:
        """Return the known embeddings [dimension] by content hash."""
        statement = "SELECT embedding FROM embeddings WHERE bundle = ? AND sha256 = ?"
        with self._errors():
            rows = [(key, self._one(statement, bundle, key)) for key in hashes]
            size = dimension * np.dtype(np.float32).itemsize
            return {key: np.frombuffer(row[0], np.float32) for key, row in rows if row is not None and len(row[0]) == size}

    def add_embeddings(self, bundle: str, embeddings: Mapping[str, FloatArray]) -> None:
        """Store embeddings [dimension] by content hash, all or nothing."""
        rows = [(bundle, key, embedding.astype(np.float32).tobytes()) for key, embedding in embeddings.items()]
        with self._errors():
            self._connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
            self.save()

    def save(self) -> None:
        """Make everything so far lasting."""
        with self._errors():
            self._connection.commit()
        self._unsaved = 0

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "EmbeddingCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_version(self) -> None:
        """Set up a new file; refuse a database that is somebody else's."""
        tables = self._one("SELECT count(*) FROM sqlite_master")
        if tables == (0,):
            self._connection.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")
        elif self._one("PRAGMA user_version") != (_VERSION,) or self._one("SELECT 1 FROM files LIMIT 1") not in (None, (1,)):
            raise sqlite3.DatabaseError("it is a database, but no cache of this version")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            fix = "free space, or pass another --cache; if this is a cache, it may be deleted"
            if "locked" in str(error):
                fix = "wait for the other search to end, or pass another --cache"
            raise PlumeExportError(f"The embedding cache {self._path} can not be used: {error}.", fix=fix) from error

    def _one(self, statement: str, *values: object) -> tuple[Any] | None:
        with closing(self._connection.execute(statement, values)) as cursor:
            row: tuple[Any] | None = cursor.fetchone()
            return row


def _state(file: Path) -> str:
    """Everything that the file system tells of a change, the time of the inode's change included (`cp -p` keeps the other)."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
