"""Cache of what a search computes from images, keyed by their content: an SQLite file in the user's cache directory."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from ..bundle import sha256_of_file
from ..inputs import Notice
from ..stages import FloatArray
from .database import RebuiltDatabase, Report, warn

_SCHEMA = """
CREATE TABLE files (path BLOB, state BLOB, sha256 BLOB, checksum BLOB, PRIMARY KEY (path));
CREATE TABLE embeddings (bundle BLOB, sha256 BLOB, embedding BLOB, checksum BLOB, PRIMARY KEY (bundle, sha256));
CREATE TABLE failures (reader BLOB, sha256 BLOB, reason BLOB, checksum BLOB, PRIMARY KEY (reader, sha256));
CREATE TABLE notices (bundle BLOB, sha256 BLOB, notices BLOB, checksum BLOB, PRIMARY KEY (bundle, sha256))
"""
# The hash of a file that changed more recently is not cached, because the file may change again without a new time.
_SETTLED_SECONDS = 2
_SAVE_FILES = 256


def default_cache_file() -> Path:
    """Return the default cache file in the user's cache directory."""
    from platformdirs import user_cache_path

    return user_cache_path("plume-export", appauthor=False) / "embeddings.sqlite"


class EmbeddingCache:
    """Caches hashes of files by path and file state, and embeddings, notices and reading errors by content hash.

    Embeddings and notices are stored per bundle, errors per reader (the versions of the packages that decode images). A context
    manager. Every row has a checksum. If the cache is corrupt or from another version, it is renamed to NAME.old (or
    NAME.old-2, ...), reported, and replaced by an empty one. Every method raises PlumeExportError if the file cannot be read or
    written or is not a cache.
    """

    def __init__(self, path: Path, report: Report = warn) -> None:
        self._database = RebuiltDatabase(path, _SCHEMA, report)
        self._new_files: dict[bytes, tuple[bytes, bytes]] = {}

    def content_hash(self, file: Path) -> str:
        """Return the sha256 of a file. The file is read only if it is new or changed. Raises OSError if it cannot be read."""
        name, state = os.fsencode(os.path.realpath(file)), _state(file)
        known = self._values("SELECT sha256, checksum FROM files WHERE path = ? AND state = ?", [(name, state)])
        if known:
            return known[name, state].decode()
        digest = sha256_of_file(file)
        if time.time() - file.stat().st_mtime > _SETTLED_SECONDS:
            self._new_files[name] = (state, digest.encode())
            if len(self._new_files) == _SAVE_FILES:
                self.save()
        return digest

    def embeddings(self, bundle: str, hashes: Iterable[str], dimension: int) -> dict[str, FloatArray]:
        """Return the cached embeddings [dimension] by content hash."""
        statement = "SELECT embedding, checksum FROM embeddings WHERE bundle = ? AND sha256 = ?"
        rows = self._values(statement, _keys(bundle, hashes))
        size = dimension * np.dtype(np.float32).itemsize
        return {key.decode(): np.frombuffer(value, np.float32) for (_, key), value in rows.items() if len(value) == size}

    def add_embeddings(self, bundle: str, embeddings: Mapping[str, FloatArray]) -> None:
        """Store embeddings [dimension] by content hash, all or nothing."""
        values = [embedding.astype(np.float32).tobytes() for embedding in embeddings.values()]
        self._add("embeddings", zip(_keys(bundle, embeddings), values, strict=True))

    def failures(self, reader: str, hashes: Iterable[str]) -> dict[str, str]:
        """Return, by content hash, the reason why `reader` could not read the content."""
        rows = self._values("SELECT reason, checksum FROM failures WHERE reader = ? AND sha256 = ?", _keys(reader, hashes))
        return {key.decode(): _text(reason) for (_, key), reason in rows.items()}

    def add_failures(self, reader: str, reasons: Mapping[str, str]) -> None:
        """Store, by content hash, the reason why `reader` could not read the content; all or nothing."""
        self._add("failures", zip(_keys(reader, reasons), map(_bytes, reasons.values()), strict=True))

    def notices(self, bundle: str, hashes: Iterable[str]) -> dict[str, list[Notice]]:
        """Return, by content hash, the notices given when the content was embedded."""
        rows = self._values("SELECT notices, checksum FROM notices WHERE bundle = ? AND sha256 = ?", _keys(bundle, hashes))
        return {key.decode(): msgspec.json.decode(value, type=list[Notice]) for (_, key), value in rows.items()}

    def add_notices(self, bundle: str, notices: Mapping[str, list[Notice]]) -> None:
        """Store notices by content hash, all or nothing."""
        self._add("notices", zip(_keys(bundle, notices), map(msgspec.json.encode, notices.values()), strict=True))

    def save(self) -> None:
        """Store the file hashes computed so far."""
        self._add("files", (((name, state), digest) for name, (state, digest) in self._new_files.items()))
        self._new_files.clear()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> "EmbeddingCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _values(self, statement: str, keys: list[tuple[bytes, bytes]]) -> dict[tuple[bytes, bytes], bytes]:
        """Return the stored values by key. Missing keys are left out."""

        def select(connection: sqlite3.Connection) -> dict[tuple[bytes, bytes], bytes]:
            rows = ((key, connection.execute(statement, key).fetchone()) for key in keys)
            return {key: _checked(key, *row) for key, row in rows if row is not None}

        return self._database.run(select)

    def _add(self, table: str, rows: Iterable[tuple[tuple[bytes, bytes], bytes]]) -> None:
        values = [(*key, value, _checksum(key, value)) for key, value in rows]
        if values:
            statement = f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)"
            self._database.run(lambda connection: connection.executemany(statement, values))


def _state(file: Path) -> bytes:
    """Return the file's state in the file system. It includes the ctime, because `cp -p` preserves the mtime."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}".encode()


def _keys(name: str, hashes: Iterable[str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), key.encode()) for key in hashes]


def _checked(key: tuple[bytes, bytes], value: object, checksum: object) -> bytes:
    if not isinstance(value, bytes) or checksum != _checksum(key, value):
        raise sqlite3.DatabaseError("a row does not match its checksum")
    return value


def _checksum(key: tuple[bytes, bytes], value: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (*key, value):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _bytes(text: str) -> bytes:
    """Encode a reason. File names in it may have bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
