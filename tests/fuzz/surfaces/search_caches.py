"""The SQLite file in which a search keeps embeddings."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.search.cache import EmbeddingCache

from ..mutation import INTEGERS, TEXTS, mutated
from ..surface import Files, Surface

_CASE = "cache.sqlite"
_PICTURE = "picture.png"
_DIMENSION = 8
_EMBEDDING = np.arange(_DIMENSION, dtype=np.float32)
_VALUES = (
    None,
    b"",
    b"a",
    _EMBEDDING.tobytes(),
    _EMBEDDING.tobytes() * 2,
    bytes(1 << 20),
    np.full(_DIMENSION, np.nan, np.float32).tobytes(),
)
_VALUES += (*(v for v in INTEGERS if abs(v) < 2**63), 1.5, float("inf"), "a", "é" * 100)
_STATEMENTS = (
    *(
        "DROP TABLE files",
        "DROP TABLE embeddings",
        "PRAGMA user_version = 99",
        "PRAGMA user_version = 0",
        "PRAGMA journal_mode = WAL",
    ),
    *("CREATE TABLE other (x)", "ALTER TABLE embeddings RENAME COLUMN embedding TO other", "ALTER TABLE files ADD COLUMN x"),
    *(
        "DROP TABLE embeddings; CREATE VIEW embeddings AS SELECT 1 AS bundle, 2 AS sha256, 3 AS embedding",
        "DELETE FROM embeddings",
    ),
    "DROP TABLE files; CREATE VIEW files AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT x AS path, x AS state, x AS sha256 FROM c",
    "CREATE TRIGGER t AFTER INSERT ON embeddings BEGIN SELECT RAISE(ABORT, 'no'); END",
)


def _write(directory: Path) -> None:
    (directory / _PICTURE).write_bytes(b"any content")
    with EmbeddingCache(directory / _CASE) as cache:
        digest = cache.content_hash(directory / _PICTURE)
        cache.add_embeddings("bundle", {digest: _EMBEDDING, "other": _EMBEDDING})


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    seed = (directory / _CASE).read_bytes()
    return st.one_of(mutated([seed], [b"CREATE", b"bundle"]), _edited_rows(seed)).map(lambda content: {_CASE: content})


@st.composite
def _edited_rows(draw: DrawFn, seed: bytes) -> bytes:
    """A database that is whole, with other values, columns or tables."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(seed)
        for _ in range(draw(st.integers(1, 3))):
            if draw(st.booleans()):
                table, column = draw(
                    st.sampled_from(
                        (("embeddings", "embedding"), ("embeddings", "sha256"), ("files", "sha256"), ("files", "state"))
                    )
                )
                value = draw(st.sampled_from((*_VALUES, *TEXTS)))
                with suppress(sqlite3.Error):  # an earlier change took the table away
                    connection.execute(f"UPDATE OR REPLACE {table} SET {column} = ?", (value,))
            else:
                with suppress(sqlite3.Error):
                    connection.executescript(draw(st.sampled_from(_STATEMENTS)))
        connection.commit()
        return bytes(connection.serialize())


def _read(directory: Path) -> None:
    with EmbeddingCache(directory / _CASE) as cache:
        digest = cache.content_hash(directory / _PICTURE)
        for embedding in cache.embeddings("bundle", [digest, "other", "unknown"], _DIMENSION).values():
            assert embedding.shape == (_DIMENSION,)
            assert embedding.dtype == np.float32
        cache.add_embeddings("bundle", {"new": _EMBEDDING})
        assert (cache.embeddings("bundle", ["new"], _DIMENSION)["new"] == _EMBEDDING).all()
        cache.save()


SURFACE = Surface("search-caches", 6, _write, _cases, _read)
