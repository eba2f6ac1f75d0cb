"""The files of a bundle that is being made."""

import shutil
from pathlib import Path

import msgspec

from .bundle import sha256_of_file
from .manifest import MANIFEST, FileEntry, Manifest, manifest_sha256


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Hash every file of the directory and write the manifest, last of all; return it complete."""
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
    """Copy a file into another bundle. Never a hard link: onnx refuses external data that has a second name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def move_file(source: Path, target: Path) -> None:
    """Take a file out of a bundle that is not kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)
