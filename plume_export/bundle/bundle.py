"""Open a bundle: read its manifest and verify its files."""

import hashlib
import os
import shlex
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from ..atomic import check_not_locked, moved_aside
from ..errors import BundleError, PlumeExportError
from ..spec import GraphName
from .contained import check_plain_name, contained_file
from .external_data import check_external_data
from .manifest import (
    CONSTANTS,
    KIND,
    MANIFEST,
    SCHEMA_VERSION,
    TOKENIZER,
    FileEntry,
    Manifest,
    check_consistency,
    manifest_from_json,
)
from .verified import is_remembered, now_ns, remember, state_of_bundle

# True: hash the files unless this bundle was verified before; "always": hash them again; False: names and sizes only.
Verify: TypeAlias = bool | Literal["always"]
_COPY_AGAIN = "copy the bundle again, or build it again"
_HASH_CHUNK_BYTES = 1 << 20
_MOST_MANIFEST_BYTES = 1 << 26


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    `sha256` is the hash of the manifest file, which contains the hash of every file; "" while the bundle is being written.
    `is_verified` is True if the hashes of all files were checked when it was opened.
    """

    path: Path
    manifest: Manifest
    sha256: str = ""
    is_verified: bool = False

    def file(self, name: str) -> Path:
        """Return the path of a file, which need not exist yet. Raises BundleError if the name leads out of the bundle."""
        check_plain_name(self.path, name)
        return self.path / name

    def graph_file(self, name: GraphName) -> Path:
        """Return the graph's ONNX file or engine."""
        return self.path / graph_file_name(self.manifest, name)

    def checked_graph_file(self, name: GraphName) -> Path:
        """Return the graph's file, checked again just before it is read.

        Raises BundleError if it takes weights from files outside the bundle, or if the bundle was replaced.
        """
        self.check_not_replaced()
        file = graph_file_name(self.manifest, name)
        if file.endswith(".onnx"):
            check_external_data(self.path, file, self.manifest.files or None)
        return contained_file(self.path, file)

    def check_not_replaced(self) -> None:
        """Raise BundleError if another bundle is now at the path.

        Call this also after reading a file, because files are read some time after the bundle was opened.
        """
        if not self.sha256:
            return
        text = _manifest_text(self.path)
        if text is None or hashlib.sha256(text).hexdigest() != self.sha256:
            change = "removed" if text is None else "replaced"
            raise BundleError(f"The bundle at {self.path} was {change} while it was open.", fix="open it again")

    @property
    def cache_key(self) -> str:
        """Return the key under which embeddings are cached. An unverified bundle has another key than a verified one."""
        return self.sha256 if self.is_verified else f"{self.sha256} unverified"


def graph_file_name(manifest: Manifest, name: GraphName) -> str:
    """Return the name of a graph's ONNX file or engine."""
    return f"{name}.onnx" if manifest.engines is None else f"{name}.engine"


def open_bundle(path: str | os.PathLike[str], *, verify_hashes: Verify = True) -> Bundle:
    """Read and verify a bundle.

    If the bundle was verified before and has not changed, its files are not hashed again. `verify_hashes="always"` hashes them
    in any case, and `verify_hashes=False` only checks names and sizes.

    Raises BundleError for a missing directory or file, a changed file, a name or link that leads out of the bundle, a newer
    schema, or a directory that is not a bundle.
    """
    path = Path(path)
    manifest, sha256 = _decoded_manifest(path)
    _check_whole(path, manifest)
    check_consistency(manifest, str(path / MANIFEST))
    for name, entry in manifest.files.items():
        check_file(path, name, entry, verify_hash=False)
    if verify_hashes:
        try:
            _verify(path, manifest, sha256, is_memory_used=verify_hashes != "always")
        except OSError as error:
            raise BundleError(f"The bundle {path} cannot be read: {error}.", fix=_COPY_AGAIN) from error
    return Bundle(path, manifest, sha256, is_verified=bool(verify_hashes))


def open_written(path: Path) -> Bundle:
    """Open a bundle that `write_manifest` has just hashed, without hashing it again."""
    return replace(open_bundle(path, verify_hashes=False), is_verified=True)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a bundle. Raises BundleError if it is missing, corrupt, newer, or not a bundle's manifest."""
    return _decoded_manifest(path)[0]


def _decoded_manifest(path: Path) -> tuple[Manifest, str]:
    """Return the manifest and the hash of its encoded bytes."""
    if not os.path.isdir(path):  # also False for a name that the system does not allow
        raise _missing(path)
    if (path / MANIFEST).is_symlink():
        contained_file(path, MANIFEST)
    text = _manifest_text(path)
    if text is None:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}.",
            fix="pass a bundle's directory, as written by build, export or compile",
        )
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.kind != KIND:
            raise BundleError(f"{path / MANIFEST} is not a bundle's manifest.", fix="pass a plume-export bundle")
        if head.schema_version > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {head.schema_version}; this plume-export reads up to {SCHEMA_VERSION}.",
                fix="pip install --upgrade plume-export, or build the bundle again with this version",
            )
        return manifest_from_json(msgspec.json.decode(text)), hashlib.sha256(text).hexdigest()
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, and so is text that is not UTF-8
        raise BundleError(f"{path / MANIFEST} is corrupt: {error}.", fix="build the bundle again") from None


def _missing(path: Path) -> BundleError:
    """Return the error for a missing bundle. It mentions the previous bundle if a killed build had moved that aside."""
    if os.path.exists(path):
        return BundleError(f"No bundle at {path}: it is a file.", fix="check the path; plume-export build creates a bundle")
    message = f"No bundle at {path}: the directory does not exist."
    with suppress(OSError, ValueError, PlumeExportError):  # the name is invalid, or another process is writing there
        check_not_locked(path)
        aside = moved_aside(path)
        if aside is not None and is_bundle(aside):
            way = f"`mv {shlex.quote(str(aside))} {shlex.quote(str(path))}` restores it, as does the next build into {path}"
            return BundleError(f"{message} A build that was killed moved the previous bundle to {aside}.", fix=way)
    return BundleError(message, fix="check the path; plume-export build creates a bundle")


def is_bundle(path: Path) -> bool:
    """Return True if a directory has a bundle's manifest, of any version. The manifest may be a link, as in the hub's cache."""
    text = _manifest_text(path)
    try:
        return text is not None and msgspec.json.decode(text, type=_Head).kind == KIND
    except (ValueError, RecursionError):
        return False


class _Head(msgspec.Struct):
    """The fields that manifests of every version have."""

    kind: str = ""
    schema_version: int = 0


def _manifest_text(path: Path) -> bytes | None:
    """Return the manifest of a directory; None if it has no manifest that can be read completely."""
    try:
        found = (path / MANIFEST).stat()
        is_readable = stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_MANIFEST_BYTES
        return (path / MANIFEST).read_bytes() if is_readable else None
    except OSError:
        return None


def _check_whole(path: Path, manifest: Manifest) -> None:
    graphs = [graph_file_name(manifest, name) for name in manifest.graphs]
    for name in (*graphs, CONSTANTS, TOKENIZER):
        if name not in manifest.files:
            raise BundleError(f"{path / MANIFEST} is corrupt: it does not list {name}.", fix="build the bundle again")


def check_file(path: Path, name: str, entry: FileEntry, *, verify_hash: bool) -> None:
    """Raise BundleError unless a file is inside the bundle and has the size and the hash that the manifest lists."""
    file = contained_file(path, name)
    size = file.stat().st_size
    if size != entry.bytes:
        raise BundleError(f"{file} was altered: it has {size} bytes, but the manifest says {entry.bytes}.", fix=_COPY_AGAIN)
    if verify_hash and sha256_of_file(file) != entry.sha256:
        raise BundleError(f"{file} was altered: its sha256 differs from the one in the manifest.", fix=_COPY_AGAIN)


def _verify(path: Path, manifest: Manifest, manifest_sha256: str, *, is_memory_used: bool) -> None:
    """Hash every file and remember the result. With `is_memory_used`, skip this for files that were verified in this state."""
    started_ns = now_ns()
    names = (MANIFEST, *manifest.files)
    state = state_of_bundle(path, manifest_sha256, names)
    if is_memory_used and is_remembered(state):
        return
    for name, entry in manifest.files.items():
        check_file(path, name, entry, verify_hash=True)
        if name.endswith(".onnx"):
            check_external_data(path, name, manifest.files)
    if state_of_bundle(path, manifest_sha256, names) == state:
        remember(state, verified_from_ns=started_ns)


def sha256_of_file(file: Path) -> str:
    """Return the hexadecimal hash of a file, read in chunks. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
