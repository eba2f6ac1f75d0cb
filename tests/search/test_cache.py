"""The cache under everything that happens to files: damage, other versions, other programs, two searches, kills."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from plume_export.errors import PlumeExportError
from plume_export.search.cache import EmbeddingCache

DIMENSION = 48
HASHES = [f"{number:064x}" for number in range(40)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.sqlite"


def embedding(key: str) -> np.ndarray:
    return np.random.default_rng(int(key, 16)).normal(size=DIMENSION).astype(np.float32)


def fill(path: Path) -> None:
    with EmbeddingCache(path) as cache:
        cache.add_embeddings("bundle", {key: embedding(key) for key in HASHES})
        cache.add_failures("reader", {key: f"reason {key}" for key in HASHES})


def check_rows(cache: EmbeddingCache) -> int:
    """Everything that is still known is what was stored."""
    known = cache.embeddings("bundle", HASHES, DIMENSION)
    assert all((row == embedding(key)).all() for key, row in known.items())
    assert all(reason == f"reason {key}" for key, reason in cache.failures("reader", HASHES).items())
    return len(known)


def test_float32_is_kept_exactly(path: Path) -> None:
    fill(path)
    with EmbeddingCache(path) as cache:
        assert check_rows(cache) == len(HASHES)
        assert cache.embeddings("bundle", ["f" * 64], DIMENSION) == {}
        assert cache.embeddings("bundle", HASHES[:1], 64) == {}  # another model's
        assert cache.embeddings("other", HASHES[:1], DIMENSION) == {}
        assert cache.failures("another reader", HASHES) == {}


def test_a_reason_may_name_any_file(path: Path) -> None:
    reason = os.fsdecode(b"caf\xe9.png cannot be read")
    with EmbeddingCache(path) as cache:
        cache.add_failures("reader", {"hash": reason})
        assert cache.failures("reader", ["hash"]) == {"hash": reason}


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_reported_and_gives_no_wrong_row(path: Path, seed: int) -> None:
    """Flipped bits, zeroed and cut blocks anywhere in the file."""
    fill(path)
    whole, rng = path.read_bytes(), random.Random(seed)
    data = bytearray(whole)
    start = rng.randrange(len(data))
    if seed % 4 == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif seed % 4 == 1:
        data[start : start + 512] = bytes(len(data[start : start + 512]))
    elif seed % 4 == 2:
        del data[start:]
    else:
        data[start : start + 64] = rng.randbytes(len(data[start : start + 64]))
    path.write_bytes(data)
    reports: list[str] = []
    with EmbeddingCache(path, reports.append) as cache:
        check_rows(cache)
        cache.add_embeddings("bundle", {key: embedding(key) for key in HASHES})
    with EmbeddingCache(path, reports.append) as cache:
        check_rows(cache)
    for report in reports:
        assert "was renamed to c.sqlite.old and a new cache was created" in report
    if reports:
        assert path.with_name("c.sqlite.old").exists()


def test_an_embedding_that_was_altered_is_found(path: Path) -> None:
    """SQLite has no checksums: it reads an altered row without a word."""
    fill(path)
    data = path.read_bytes()
    row = embedding(HASHES[7]).tobytes()
    assert data.count(row) == 1
    path.write_bytes(data.replace(row, row[:-1] + bytes([row[-1] ^ 1])))
    reports: list[str] = []
    with EmbeddingCache(path, reports.append) as cache:
        assert check_rows(cache) == 0
        cache.add_embeddings("bundle", {HASHES[7]: embedding(HASHES[7])})
        assert check_rows(cache) == 1
    assert len(reports) == 1
    assert "a row does not match its checksum" in reports[0]


def test_a_damaged_name_in_the_schema(path: Path) -> None:
    """Which SQLite quotes in its message as it is, so that Python cannot decode the message."""
    fill(path)
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE files", b"CREATE TABL\xff files"))
    reports: list[str] = []
    with EmbeddingCache(path, reports.append) as cache:
        assert check_rows(cache) == 0
    assert len(reports) == 1


def test_python_hears_of_it_as_a_warning(path: Path) -> None:
    fill(path)
    path.write_bytes(path.read_bytes()[:100] + b"no database" * 100)
    with pytest.warns(UserWarning, match=r"renamed to c\.sqlite\.old"):
        EmbeddingCache(path).close()


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_set_aside(path: Path, version: int) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before, reports = path.read_bytes(), list[str]()
    with EmbeddingCache(path, reports.append) as cache:
        assert check_rows(cache) == 0
    assert f"the cache has format version {version}" in reports[0]
    assert path.with_name("c.sqlite.old").read_bytes() == before


def test_the_first_version_is_known(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE files (a); CREATE TABLE embeddings (a); PRAGMA user_version = 1")
    reports: list[str] = []
    EmbeddingCache(path, reports.append).close()
    assert "the cache has format version 1" in reports[0]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    songs = tmp_path / "songs.sqlite"
    with closing(sqlite3.connect(songs)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    notes = tmp_path / "notes.txt"
    notes.write_text("something else, and long enough not to be taken for an empty file" * 20)
    named = tmp_path / "named-so.sqlite"
    named.write_bytes(b"\xff" * 5000)
    damaged = tmp_path / "theirs.sqlite"
    damaged.write_bytes(songs.read_bytes()[:100] + b"\xff" * 5000)
    for file in (songs, notes, named, damaged):
        before = file.read_bytes()
        with pytest.raises(PlumeExportError, match=r"cannot be used(.|\n)*left unchanged"):
            EmbeddingCache(file)
        assert file.read_bytes() == before
        assert sorted(tmp_path.iterdir()) == sorted([notes, songs, named, damaged])


@pytest.mark.parametrize("name", ["folder", "notes.txt/c.sqlite", "read-only.sqlite"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("")
    read_only = tmp_path / "read-only.sqlite"
    fill(read_only)
    if name.startswith("read-only"):
        if os.geteuid() == 0:
            pytest.skip("root may write everything")
        read_only.chmod(0o400)
    with pytest.raises(PlumeExportError, match="cannot be used"):
        fill(tmp_path / name)


def test_an_earlier_file_that_was_set_aside_is_kept(path: Path) -> None:
    kept = [path.with_name(name) for name in ("c.sqlite.old", "c.sqlite.old-2-wal", "c.sqlite.old-3", "c.sqlite.old-4")]
    kept[0].write_text("the user's")
    kept[1].write_text("a journal of what is gone")
    for _ in range(2):
        fill(path)
        path.write_bytes(path.read_bytes()[:100] + b"\xff" * 5000)
        reports: list[str] = []
        EmbeddingCache(path, reports.append).close()
    assert "renamed to c.sqlite.old-4 " in reports[0]
    assert kept[0].read_text() == "the user's"
    assert kept[1].read_text() == "a journal of what is gone"
    assert kept[2].read_bytes() == kept[3].read_bytes() != b""


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(PlumeExportError, match="it is not a regular file"):
            EmbeddingCache(file)
    assert not Path("/dev/null-journal").exists()


def test_a_full_disk_loses_no_row_that_was_stored(path: Path) -> None:
    script = f"""
import resource, sys
import numpy as np
from pathlib import Path
from plume_export.errors import PlumeExportError
from plume_export.search.cache import EmbeddingCache
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
with EmbeddingCache(Path({str(path)!r})) as cache:
    for number, key in enumerate({HASHES!r} * 100):
        try:
            cache.add_embeddings(f"bundle {{number // 40}}" if number >= 40 else "bundle", {{
                key: np.random.default_rng(int(key, 16)).normal(size={DIMENSION}).astype(np.float32)
            }})
        except PlumeExportError as error:
            sys.exit(str(error))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert re.match(r"The embedding cache .* cannot be used: .*\n  fix: free space", result.stderr)
    reports: list[str] = []
    with EmbeddingCache(path, reports.append) as cache:
        assert check_rows(cache) == len(HASHES)
    assert reports == []


def test_a_journal_is_not_applied_to_the_next_file(path: Path) -> None:
    fill(path)
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 5000)
    journal = path.with_name("c.sqlite-journal")
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    reports: list[str] = []
    EmbeddingCache(path, reports.append).close()
    assert reports
    assert not journal.exists()


def test_a_damaged_file_that_another_process_has_set_aside(path: Path) -> None:
    fill(path)
    reports: list[str] = []
    with EmbeddingCache(path, reports.append) as one, EmbeddingCache(path, reports.append) as two:
        path.write_bytes(path.read_bytes()[:100] + b"\xff" * 20_000)
        one.add_embeddings("bundle", {HASHES[0]: embedding(HASHES[0])})
        assert check_rows(two) == 1
        two.add_embeddings("bundle", {HASHES[1]: embedding(HASHES[1])})
        assert check_rows(one) == 2
    assert len(reports) == 1


def test_a_deleted_file_does_no_harm(path: Path) -> None:
    with EmbeddingCache(path) as cache:
        cache.add_embeddings("bundle", {HASHES[0]: embedding(HASHES[0])})
        path.unlink()
        cache.add_embeddings("bundle", {HASHES[1]: embedding(HASHES[1])})
        check_rows(cache)
    with EmbeddingCache(path) as cache:
        check_rows(cache)


def test_many_at_once(path: Path) -> None:
    """All begin with no file, and write the same rows."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with EmbeddingCache(path, errors.append) as cache:
                for key in HASHES:
                    cache.add_embeddings("bundle", {key: embedding(key)})
                    check_rows(cache)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with EmbeddingCache(path) as cache:
        assert check_rows(cache) == len(HASHES)


def test_hashing_holds_no_lock(path: Path, tmp_path: Path) -> None:
    """A search hashes for minutes; another one must be able to write meanwhile."""
    picture = tmp_path / "a.png"
    picture.write_text("a")
    os.utime(picture, (1_000_000_000, 1_000_000_000))
    with EmbeddingCache(path) as one, closing(sqlite3.connect(path, timeout=0)) as other:
        digest = one.content_hash(picture)
        other.execute("BEGIN EXCLUSIVE")
        other.execute("ROLLBACK")
        one.save()
    with EmbeddingCache(path) as cache:
        assert cache.content_hash(picture) == digest


@pytest.mark.slow
def test_kills_in_the_middle_of_writing(path: Path) -> None:
    script = f"""
import numpy as np
from pathlib import Path
from plume_export.search.cache import EmbeddingCache
cache = EmbeddingCache(Path({str(path)!r}))
rows = {{key: np.random.default_rng(int(key, 16)).normal(size={DIMENSION}).astype(np.float32) for key in {HASHES!r}}}
print(flush=True)
while True:
    cache.add_embeddings("bundle", rows)
"""
    rng = random.Random(0)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(rng.uniform(0, 0.05))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        reports: list[str] = []
        with EmbeddingCache(path, reports.append) as cache:
            assert check_rows(cache) in (0, len(HASHES))
        assert reports == []
