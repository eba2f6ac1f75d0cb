"""A bundle that was verified is not hashed again until a file of it changes."""

import os
import time
from pathlib import Path
from threading import Thread

import pytest

from plume_export.bundle import TOKENIZER, WEIGHTS, bundle, open_bundle, verified, write_manifest
from plume_export.bundle.bundle import read_manifest
from plume_export.errors import BundleError

from .small_bundle import write_small_bundle


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "plume-export" / "verified"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were hashed."""
    names: list[str] = []

    def counted(file: Path) -> str:
        names.append(file.name)
        return sha256_of_file(file)

    sha256_of_file = bundle.sha256_of_file
    monkeypatch.setattr(bundle, "sha256_of_file", counted)
    return names


@pytest.fixture
def settled(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that is older than the resolution of its times."""
    monkeypatch.setattr(verified, "_SETTLED_NS", -(10**18))
    return write_small_bundle(tmp_path / "bundle")


def test_a_verified_bundle_is_not_hashed_again(settled: Path, hashed: list[str]) -> None:
    open_bundle(settled)
    assert WEIGHTS in hashed
    hashed.clear()
    open_bundle(settled)
    assert hashed == []
    open_bundle(settled, verify_hashes="always")
    assert WEIGHTS in hashed


def test_no_verification_remembers_nothing(settled: Path, cache: Path, hashed: list[str]) -> None:
    open_bundle(settled, verify_hashes=False)
    assert hashed == []
    assert not cache.exists()


def test_a_change_of_the_same_size_and_time_is_found(settled: Path) -> None:
    open_bundle(settled)
    status = (settled / TOKENIZER).stat()
    time.sleep(0.02)  # the file system's clock ticks
    (settled / TOKENIZER).write_text("X" * status.st_size)
    os.utime(settled / TOKENIZER, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(BundleError, match="sha256"):
        open_bundle(settled)


def test_another_manifest_is_verified(settled: Path, hashed: list[str]) -> None:
    open_bundle(settled)
    write_manifest(settled, read_manifest(settled))
    hashed.clear()
    open_bundle(settled)
    assert WEIGHTS in hashed


def test_what_another_version_verified_is_verified_again(
    settled: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bundle(settled)
    monkeypatch.setattr(verified, "__version__", "0.0.1")
    hashed.clear()
    open_bundle(settled)
    assert WEIGHTS in hashed


@pytest.mark.parametrize(("age_s", "is_settled"), [(2, False), (4, True)])
def test_a_bundle_settles_longer_than_the_coarsest_times(tmp_path: Path, cache: Path, age_s: int, is_settled: bool) -> None:
    path = write_small_bundle(tmp_path / "bundle")
    state = verified.state_of_bundle(path, "0" * 64, [TOKENIZER])
    changed_ns = state.files[TOKENIZER][2]
    verified.remember(state, verified_from_ns=changed_ns + age_s * 10**9)
    assert verified.is_remembered(state) == is_settled


def test_a_bundle_that_was_just_written_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    open_bundle(write_small_bundle(tmp_path / "bundle"))
    assert not cache.exists()


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\x00", b"[]", b"[" * 100_000])
def test_a_damaged_memory_is_none(settled: Path, cache: Path, hashed: list[str], text: bytes) -> None:
    open_bundle(settled)
    (entry,) = cache.iterdir()
    entry.write_bytes(text)
    hashed.clear()
    open_bundle(settled)
    assert WEIGHTS in hashed
    hashed.clear()
    open_bundle(settled)
    assert WEIGHTS not in hashed


def test_a_cache_that_cannot_be_written(settled: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    open_bundle(settled)
    open_bundle(settled)


def test_many_writers_leave_one_whole_entry(settled: Path, cache: Path, hashed: list[str]) -> None:
    threads = [Thread(target=open_bundle, args=(settled,), kwargs={"verify_hashes": "always"}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(cache.iterdir())) == 1
    hashed.clear()
    open_bundle(settled)
    assert WEIGHTS not in hashed
