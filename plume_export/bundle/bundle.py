"""Open a bundle: read its manifest and verify its files."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import BundleError
from ..spec import GraphName
from .consistency import check_consistency
from .manifest import KIND, MANIFEST, SCHEMA_VERSION, FileEntry, Manifest, manifest_from_json

_HASH_CHUNK_BYTES = 1 << 20
_MOST_MANIFEST_BYTES = 1 << 26


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        return self.path / name

    def graph_file(self, name: GraphName) -> Path:
        """The graph's ONNX file or engine."""
        return self.path / (f"{name}.onnx" if self.manifest.engines is None else f"{name}.engine")

    @property
    def sha256(self) -> str:
        """The hash of the manifest, which holds the hash of every file."""
        return sha256_of_file(self.path / MANIFEST)


def open_bundle(path: str | os.PathLike[str], *, verify_hashes: bool = True) -> Bundle:
    """Read and verify a bundle.

    Raises BundleError for a missing directory or file, a changed file, a newer schema or something that is no bundle.
    `verify_hashes=False` checks names and sizes only, which saves reading the weights.
    """
    path = Path(path)
    manifest = read_manifest(path)
    check_consistency(manifest, str(path / MANIFEST))
    for name, entry in manifest.files.items():
        check_file(path, name, entry, verify_hash=verify_hashes)
    return Bundle(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a bundle. Raises BundleError if it is missing, damaged, newer or of something else."""
    if not path.is_dir():
        found = "it is a file" if path.exists() else "there is nothing"
        raise BundleError(
            f"There is no bundle at {path}: {found}.", fix="check the path, or plume-export build --output " + str(path)
        )
    text = _manifest_text(path)
    if text is None:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}.", fix="pass the directory that plume-export build wrote"
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
        return manifest_from_json(msgspec.json.decode(text))
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors, and so is a text that is not UTF-8
        raise BundleError(f"{path / MANIFEST} is damaged: {error}.", fix="build the bundle again") from None


def is_bundle(path: Path) -> bool:
    """Whether a directory has the manifest of a bundle, of any version."""
    text = _manifest_text(path)
    try:
        return text is not None and msgspec.json.decode(text, type=_Head).kind == KIND
    except (ValueError, RecursionError):
        return False


class _Head(msgspec.Struct):
    """What the manifests of all versions have."""

    kind: str = ""
    schema_version: int = 0


def _manifest_text(path: Path) -> bytes | None:
    """Return the manifest of a directory; None if it is missing or no file that can be read whole."""
    file = path / MANIFEST
    try:
        return file.read_bytes() if file.is_file() and file.stat().st_size <= _MOST_MANIFEST_BYTES else None
    except OSError:
        return None


def check_file(path: Path, name: str, entry: FileEntry, *, verify_hash: bool) -> None:
    fix = "copy the bundle again, or build it again"
    file = path / name
    if not file.is_file():
        raise BundleError(f"The bundle {path} lacks the file {name}.", fix=fix)
    size = file.stat().st_size
    if size != entry.bytes:
        raise BundleError(f"{file} was altered: it has {size} bytes, the manifest says {entry.bytes}.", fix=fix)
    if verify_hash and sha256_of_file(file) != entry.sha256:
        raise BundleError(f"{file} was altered: its sha256 is not the one in the manifest.", fix=fix)


def sha256_of_file(file: Path) -> str:
    """Return the hexadecimal hash of a file, read in pieces. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
