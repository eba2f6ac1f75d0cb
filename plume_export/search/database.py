"""An SQLite file of data that can be computed again. If it is corrupt, it is renamed and a new one is created."""

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeAlias, TypeVar

from ..errors import PlumeExportError

_Result = TypeVar("_Result")
# Receives one sentence for the user.
Report: TypeAlias = Callable[[str], None]
# "plum" in the file's header, so that no other program's database is mistaken for ours.
_APPLICATION_ID = 0x706C756D
_VERSION = 2
# Tables of version 1, which had no application id.
_FIRST_TABLES, _FIRST_VERSION = {"files", "embeddings"}, 1
_MAGIC = b"SQLite format 3\0"
# Source: the SQLite file format, section 1.3.
_HEADER_BYTES, _ID_BYTES = 100, slice(68, 72)
_JOURNALS = ("-journal", "-wal", "-shm")
# How long to wait for a lock.
_TIMEOUT_S = 60
_ATTEMPTS = 3
# Parts of SQLite's messages for errors that are not due to the file's content (error codes need Python 3.11). Any other error
# means that the file is corrupt.
_SURROUNDINGS = ("locked", "unable to open", "disk I/O", "is full", "readonly", "out of memory", "interrupted", "authorized")


class _NotOursError(Exception):
    """The database belongs to another program and is left unchanged."""


class _OtherVersionError(Exception):
    """The database is ours, but of another version."""


class RebuiltDatabase:
    """Runs transactions on an SQLite file with a schema. A corrupt file, or one of another version, is renamed and reported.

    Several processes may open it at the same time. `path` and its parents may be missing. Raises PlumeExportError if the file
    cannot be read or written, stays locked, or is not ours.
    """

    def __init__(self, path: Path, schema: str, report: Report) -> None:
        self.path = Path(os.path.abspath(path))
        self._schema, self._report = schema, report
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._is_ours = False
        self.run(lambda _: None)

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Return the result of `work`, run in a transaction. If the file is corrupt, run `work` again on a new empty file.

        A row that fails its checksum also counts as corruption: `work` raises sqlite3.DatabaseError for it.
        """
        for _ in range(_ATTEMPTS):
            with self._errors():
                try:
                    with _transaction(self._opened()) as connection:
                        return work(connection)
                except (sqlite3.Error, UnicodeDecodeError, _OtherVersionError) as error:  # messages quote corrupt names
                    if self._is_replaced():  # another process has renamed it
                        self.close()
                    elif isinstance(error, sqlite3.Error) and any(text in str(error) for text in _SURROUNDINGS):
                        raise
                    else:
                        self._set_aside(str(error))
        raise PlumeExportError(
            f"The embedding cache {self.path} was corrupt twice in a row.", fix="pass another --cache, on another disk"
        )

    def close(self) -> None:
        """Close the file. The next `run` opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and not self.path.is_file():  # SQLite would put its journal beside /dev/null
                raise _NotOursError("it is not a regular file")
            os.close(os.open(self.path, os.O_RDONLY | os.O_CREAT, 0o666))
            self._identity, self._is_ours = _identity(self.path), False
            connection = sqlite3.connect(self.path, timeout=_TIMEOUT_S, isolation_level=None)
            try:
                self._check(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Create the tables in an empty file. Raises _NotOursError for another program's database, and _OtherVersionError."""
        if not _tables(connection):
            with _transaction(connection, kind="IMMEDIATE"):
                if not _tables(connection):  # another process may have created them in the meantime
                    for statement in self._schema.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
        application, version = (_pragma(connection, name) for name in ("application_id", "user_version"))
        is_first = version == _FIRST_VERSION and application == 0 and _tables(connection) == _FIRST_TABLES
        if application != _APPLICATION_ID and not is_first:
            raise _NotOursError("it is another program's database")
        self._is_ours = True
        if version != _VERSION:
            raise _OtherVersionError(f"the cache has format version {version}; this version of plume-export needs {_VERSION}")

    def _set_aside(self, reason: str) -> None:
        """Rename the file and its journals, which must not be applied to the next file. Nothing is overwritten."""
        self.close()
        if not self._was_ours():
            raise _NotOursError(reason)
        aside = self._reserved_aside()
        try:
            os.replace(self.path, aside)
        except BaseException:
            aside.unlink()
            raise
        for journal in _JOURNALS:
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}{journal}", f"{aside}{journal}")
        self._report(
            f"The embedding cache {self.path} cannot be used: {reason}. It was renamed to {aside.name} and a new "
            "cache was created."
        )

    def _was_ours(self) -> bool:
        """Return True if the file is empty, has our application id, or is a database that was ours when it was opened."""
        with self.path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        return (
            not header
            or header[_ID_BYTES] == _APPLICATION_ID.to_bytes(4, "big")
            or (self._is_ours and header.startswith(_MAGIC))
        )

    def _reserved_aside(self) -> Path:
        """Return the first free name of NAME.old, NAME.old-2 and so on. An empty file reserves it."""
        for number in count(1):
            aside = self.path.with_name(f"{self.path.name}.old{'' if number == 1 else f'-{number}'}")
            if any(os.path.lexists(f"{aside}{journal}") for journal in _JOURNALS):
                continue
            with suppress(FileExistsError):
                os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                return aside
        raise AssertionError

    def _is_replaced(self) -> bool:
        return _identity(self.path) != self._identity

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, _NotOursError) as error:
            fix = "free space, or pass another --cache"
            if "locked" in str(error):
                fix = "wait for the other search to end, or pass another --cache"
            elif isinstance(error, _NotOursError):
                fix = "pass another --cache, or delete the file if it is not needed; it was left unchanged"
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise PlumeExportError(f"The embedding cache {self.path} cannot be used: {reason}.", fix=fix) from error


def warn(sentence: str) -> None:
    """Report a sentence as a Python warning."""
    warnings.warn(sentence, UserWarning, stacklevel=2)


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite rolls back by itself on some errors
            connection.execute("ROLLBACK")
        raise


def _tables(connection: sqlite3.Connection) -> set[str]:
    with closing(connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")) as cursor:
        return {str(row[0]) for row in cursor}


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    with closing(connection.execute(f"PRAGMA {name}")) as cursor:
        return int(cursor.fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
