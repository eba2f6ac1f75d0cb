"""Open a bundle: read its manifest and verify its files."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import BundleError
from ..spec import GraphName
from .manifest import MANIFEST, SCHEMA_VERSION, FileEntry, Manifest, manifest_from_json

_HASH_CHUNK_BYTES = 1 << 20


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
    manifest = _read_manifest(path)
    for name, entry in manifest.files.items():
        _check_file(path, name, entry, verify_hash=verify_hashes)
    return Bundle(path, manifest)


def _read_manifest(path: Path) -> Manifest:
    if not path.is_dir():
        found = "it is a file" if path.exists() else "there is nothing"
        raise BundleError(
            f"There is no bundle at {path}: {found}.", fix="check the path, or plume-export build --output " + str(path)
        )
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}.", fix="pass the directory that plume-export build wrote"
        ) from None
    try:
        head = msgspec.json.decode(text)
        if not isinstance(head, dict) or head.get("kind") != "plume-export bundle":
            raise BundleError(f"{path / MANIFEST} is not a bundle's manifest.", fix="pass a plume-export bundle")
        if head.get("schema_version", 0) > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {head['schema_version']}; this plume-export reads up to {SCHEMA_VERSION}.",
                fix="pip install --upgrade plume-export, or build the bundle again with this version",
            )
        return manifest_from_json(head)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error}.", fix="build the bundle again") from None


def _check_file(path: Path, name: str, entry: FileEntry, *, verify_hash: bool) -> None:
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
