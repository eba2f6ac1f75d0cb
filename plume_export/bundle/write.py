"""Write the files of a new bundle."""

import shutil
from pathlib import Path

import msgspec

from .bundle import sha256_of_file
from .manifest import MANIFEST, FileEntry, Manifest, manifest_sha256


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Hash every file of the directory, then write the manifest as the last file. Return the complete manifest."""
    names = sorted(
        file.relative_to(directory).as_posix()
        for file in directory.rglob("*")
        if file.is_file() and file != directory / MANIFEST
    )
    files = {name: FileEntry((directory / name).stat().st_size, sha256_of_file(directory / name)) for name in names}
    complete = msgspec.structs.replace(manifest, files=files, manifest_sha256=None)
    complete = msgspec.structs.replace(complete, manifest_sha256=manifest_sha256(msgspec.to_builtins(complete)))
    text = msgspec.json.format(msgspec.json.encode(complete), indent=2)
    (directory / MANIFEST).write_bytes(text + b"\n")
    return complete


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into another bundle. A hard link would not work: onnx rejects external data files with several names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def move_file(source: Path, target: Path) -> None:
    """Move a file out of a bundle that will be deleted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)
