"""A bundle reads nothing outside itself, whoever wrote its names."""

import os
from pathlib import Path

import msgspec
import pytest

from plume_export.bundle import CONSTANTS, MANIFEST, TOKENIZER, Bundle, FileEntry, Manifest, open_bundle, write_manifest
from plume_export.bundle.bundle import read_manifest
from plume_export.bundle.manifest import manifest_sha256
from plume_export.errors import BundleError

from .small_bundle import write_small_bundle

OUTSIDE = [
    "../secret",
    "../../../../etc/passwd",
    "selftest/../../secret",
    "/etc/passwd",
    "./tokenizer.json",
    "selftest//inputs.jsonl",
    "selftest/.",
    "..",
    "",
    "a\\..\\..\\secret",
    "C:secret",
    "c:/secret",
    "a\0b",
]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    return write_small_bundle(tmp_path / "bundle")


def rewrite(bundle: Path, **changes: object) -> Manifest:
    manifest = msgspec.structs.replace(read_manifest(bundle), manifest_sha256=None, **changes)
    manifest = msgspec.structs.replace(manifest, manifest_sha256=manifest_sha256(msgspec.to_builtins(manifest)))
    (bundle / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return manifest


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("verify", [True, False])
def test_a_name_that_leads_out(bundle: Path, name: str, verify: bool) -> None:
    rewrite(bundle, files={**read_manifest(bundle).files, name: FileEntry(6, "0" * 64)})
    with pytest.raises(BundleError, match="expected a plain path inside the bundle"):
        open_bundle(bundle, verify_hashes=verify)
    with pytest.raises(BundleError, match="expected a plain path inside the bundle"):
        Bundle(bundle, read_manifest(bundle)).file(name)


@pytest.mark.parametrize("verify", [True, False])
def test_a_link_that_leads_out(bundle: Path, verify: bool) -> None:
    (bundle / TOKENIZER).rename(bundle.parent / TOKENIZER)
    (bundle / TOKENIZER).symlink_to(bundle.parent / TOKENIZER)
    with pytest.raises(BundleError, match=r"symbolic link to .* outside the bundle"):
        open_bundle(bundle, verify_hashes=verify)


def test_a_directory_that_is_a_link_out(bundle: Path) -> None:
    (bundle / "selftest").rename(bundle.parent / "elsewhere")
    (bundle / "selftest").symlink_to("../elsewhere")
    with pytest.raises(BundleError, match="outside the bundle"):
        open_bundle(bundle)


def test_a_manifest_that_is_a_link_out(bundle: Path) -> None:
    (bundle / MANIFEST).rename(bundle.parent / MANIFEST)
    (bundle / MANIFEST).symlink_to(bundle.parent / MANIFEST)
    with pytest.raises(BundleError, match=r"manifest\.json is a symbolic link to .* outside the bundle") as raised:
        open_bundle(bundle)
    assert "cp -rL" in raised.value.fix


def test_links_to_a_bundle_and_within_it_are_fine(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("bundle")
    (bundle / TOKENIZER).rename(bundle / "selftest" / "real.json")
    (bundle / TOKENIZER).symlink_to("selftest/real.json")
    write_manifest(bundle, read_manifest(bundle))
    assert open_bundle(tmp_path / "link").path == tmp_path / "link"


@pytest.mark.parametrize("name", [TOKENIZER, MANIFEST])
def test_a_pipe_is_refused_and_not_read(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=r"not a regular file|no manifest\.json"):
        open_bundle(bundle)


def test_a_link_in_a_circle(bundle: Path) -> None:
    (bundle / TOKENIZER).unlink()
    (bundle / TOKENIZER).symlink_to(TOKENIZER)
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(bundle)


def test_a_name_too_long_for_the_file_system(bundle: Path) -> None:
    rewrite(bundle, files={**read_manifest(bundle).files, "n" * 300: FileEntry(6, "0" * 64)})
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["prefill.onnx", CONSTANTS, TOKENIZER])
def test_files_that_are_read_must_be_listed(bundle: Path, name: str) -> None:
    files = dict(read_manifest(bundle).files)
    del files[name]
    rewrite(bundle, files=files)
    with pytest.raises(BundleError, match=f"does not list {name}"):
        open_bundle(bundle, verify_hashes=False)


@pytest.mark.parametrize("text", [b"[]", b"[" * 100_000, b"\xff", b'{"kind": "plume-export bundle", "schema_version": "9"}'])
def test_a_damaged_manifest(bundle: Path, text: bytes) -> None:
    (bundle / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match="corrupt"):
        open_bundle(bundle)
