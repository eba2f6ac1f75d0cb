"""Verified bundles are remembered in the user's cache, so that the next start need not read gigabytes again.

A bundle is identified by the hash of its manifest and by the size, times, inode and device of every file. The ctime is
included, because a copy can preserve the mtime. Bundles verified by another version of this package are verified again.

Two kinds of change are not detected. The first is a write through a memory mapping to a page that was already modified before
the verification and not yet written back. The second is a change after which the file's old mtime is restored, on a file system
whose ctime follows the mtime (FAT, some network and FUSE file systems). `verify_hashes="always"` detects both.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from .. import __version__

# A state is not remembered if a file changed more recently: it may change again within the resolution of file times, which is
# 2 s on FAT.
_SETTLED_NS = 3_000_000_000
_MOST_ENTRIES = 256


class BundleState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """State of a bundle's files: the manifest's hash, and (size, mtime, ctime, inode, device) per file, with times in ns."""

    version: str
    path: str
    manifest_sha256: str
    files: dict[str, tuple[int, int, int, int, int]]


def state_of_bundle(directory: Path, manifest_sha256: str, names: Iterable[str]) -> BundleState:
    """Return the current state of a bundle. Raises OSError."""
    files = {}
    for name in names:
        status = (directory / name).stat()
        files[name] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return BundleState(__version__, os.fsencode(directory.resolve()).hex(), manifest_sha256, files)


def is_remembered(state: BundleState) -> bool:
    """Return True if a bundle was verified in exactly this state. False if the cache file cannot be read or is corrupt."""
    try:
        return msgspec.json.decode(_file_of(state).read_bytes(), type=BundleState) == state
    except (OSError, ValueError, RecursionError):
        return False


def remember(state: BundleState, *, verified_from_ns: int) -> None:
    """Remember a state whose verification started at `verified_from_ns`, if no file had changed shortly before.

    If the cache cannot be written, the next start verifies again.
    """
    newest_ns = max((ctime for _, _, ctime, _, _ in state.files.values()), default=0)
    if newest_ns > verified_from_ns - _SETTLED_NS:
        return
    file = _file_of(state)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(msgspec.json.encode(state))
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _forget_oldest(file.parent)


def now_ns() -> int:
    """Return the current time by the clock that the file system uses for timestamps."""
    return time.time_ns()


def _file_of(state: BundleState) -> Path:
    from platformdirs import user_cache_path

    name = hashlib.sha256(state.path.encode()).hexdigest()[:32]
    return user_cache_path("plume-export", appauthor=False) / "verified" / f"{name}.json"


def _forget_oldest(directory: Path) -> None:
    entries = sorted(directory.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for file in entries[:-_MOST_ENTRIES]:
        file.unlink(missing_ok=True)
