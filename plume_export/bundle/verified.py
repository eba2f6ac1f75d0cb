"""Bundles that were verified, remembered in the user's cache: the next start does not read gigabytes again.

A bundle is known by the hash of its manifest and by size, times, inode and device of every file. The time of the inode's
change counts too, since a copy can keep the other one. What another version of this package verified is verified again.

Two changes are not seen: those written through a memory mapping that was changed before the verification and written back
after it, and those on a file system whose ctime follows the mtime (FAT, some network and FUSE file systems), where a file's old
time is set again. `verify_hashes="always"` finds both.
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

# A file that was changed so lately may be changed again within the resolution of its time, which is 2 s on FAT.
_SETTLED_NS = 3_000_000_000
_MOST_ENTRIES = 256


class BundleState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file system and the manifest say of a bundle's files: (size, mtime, ctime, inode, device), times in ns."""

    version: str
    path: str
    manifest_sha256: str
    files: dict[str, tuple[int, int, int, int, int]]


def state_of_bundle(directory: Path, manifest_sha256: str, names: Iterable[str]) -> BundleState:
    """Return the state of a bundle as it is now. Raises OSError."""
    files = {}
    for name in names:
        status = (directory / name).stat()
        files[name] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return BundleState(__version__, os.fsencode(directory.resolve()).hex(), manifest_sha256, files)


def is_remembered(state: BundleState) -> bool:
    """Whether a bundle was verified in this very state. A file that cannot be read, or is damaged, remembers nothing."""
    try:
        return msgspec.json.decode(_file_of(state).read_bytes(), type=BundleState) == state
    except (OSError, ValueError, RecursionError):
        return False


def remember(state: BundleState, *, verified_from_ns: int) -> None:
    """Remember a state that was verified from that time on; where nothing can be written, the next start verifies again."""
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
    """Return the time that the file system's times are compared with."""
    return time.time_ns()


def _file_of(state: BundleState) -> Path:
    from platformdirs import user_cache_path

    name = hashlib.sha256(state.path.encode()).hexdigest()[:32]
    return user_cache_path("plume-export", appauthor=False) / "verified" / f"{name}.json"


def _forget_oldest(directory: Path) -> None:
    entries = sorted(directory.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for file in entries[:-_MOST_ENTRIES]:
        file.unlink(missing_ok=True)
