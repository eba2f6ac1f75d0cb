"""Bundles are verified when opened and written all or nothing."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from plume_export.atomic import scratch_directory
from plume_export.bundle import MANIFEST, Bundle, new_bundle, open_bundle
from plume_export.bundle.bundle import read_manifest
from plume_export.errors import BundleError, PlumeExportError
from plume_export.runtime.onnxruntime_cpu import OnnxRuntimeCpu

from .small_bundle import write_small_bundle


@pytest.fixture
def copy(tmp_path: Path, tiny_fp32: Bundle) -> Path:
    return Path(shutil.copytree(tiny_fp32.path, tmp_path / "bundle"))


def edit_manifest(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(manifest | changes))


def test_a_whole_bundle_opens(copy: Path) -> None:
    assert open_bundle(copy).manifest.precision == "fp32"


@pytest.mark.parametrize("name", ["no/such/bundle", "a" * 5000, "a\0b"])
def test_missing_directory(name: str) -> None:
    with pytest.raises(BundleError, match=r"No bundle at .*: the directory does not exist"):
        open_bundle(name)


@pytest.mark.parametrize("name", ["bundle", "a bundle"])
def test_what_a_killed_build_left_of_a_missing_bundle_is_named(tmp_path: Path, tiny_fp32: Bundle, name: str) -> None:
    path = tmp_path / name
    shutil.copytree(tiny_fp32.path, path)
    aside = path.rename(path.with_name(f".{name}.partial-abcd_123.old"))
    (tmp_path / f".{name}.partial-abcd_124").mkdir()
    with pytest.raises(BundleError, match=r"the directory does not exist\. A build that was killed moved") as raised:
        open_bundle(path)
    assert str(aside) in raised.value.message
    assert "the next build into" in str(raised.value.fix)
    with scratch_directory(path):  # restores it
        aside = path.rename(aside)
        with pytest.raises(BundleError, match=r"the directory does not exist\.\n"):  # it is being written
            open_bundle(path)
    subprocess.run(str(raised.value.fix).split("`")[1], shell=True, check=True)
    assert open_bundle(path).manifest.precision == "fp32"


def test_directory_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        open_bundle(tmp_path)


def test_missing_file_is_named(copy: Path) -> None:
    (copy / "prefill.onnx").unlink()
    with pytest.raises(BundleError, match=r"The file prefill\.onnx is missing"):
        open_bundle(copy)


def test_altered_byte_is_found(copy: Path) -> None:
    weights = copy / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        open_bundle(copy)


def test_truncated_file_is_found_without_hashes(copy: Path) -> None:
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BundleError, match="was altered: it has"):
        open_bundle(copy, verify_hashes=False)


def test_newer_schema(copy: Path) -> None:
    edit_manifest(copy, schema_version=99)
    with pytest.raises(BundleError, match="schema version 99"):
        open_bundle(copy)


def test_older_schema(copy: Path) -> None:
    """Of 4: what was added since has defaults."""
    edit_manifest(copy, schema_version=4, checkpoint="somewhere")
    manifest = json.loads((copy / MANIFEST).read_text())
    del manifest["cached_start"], manifest["product_weights"], manifest["manifest_sha256"]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    opened = open_bundle(copy).manifest
    assert opened.cached_start is None
    assert opened.checkpoint.name == "somewhere"


def test_wrong_kind(copy: Path) -> None:
    edit_manifest(copy, kind="something else")
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        open_bundle(copy)


def test_unknown_manifest_key(copy: Path) -> None:
    edit_manifest(copy, colour="red")
    with pytest.raises(BundleError, match="colour"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"min_pixels": 784', '"min_pixels": 785'),
        ('"schema_version": 6', '"schema_version": 4'),
        ('"norm_epsilon"', '"norm_epsiloN"'),
        ('"manifest_sha256"', '"manifest_sha257"'),
    ],
)
def test_altered_manifest_is_found(tmp_path: Path, before: str, after: str) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    text = (bundle / MANIFEST).read_text()
    assert before in text
    (bundle / MANIFEST).write_text(text.replace(before, after))
    with pytest.raises(BundleError, match=r"manifest\.json is corrupt: .*(manifest_sha256|unknown field|missing required)"):
        open_bundle(bundle, verify_hashes=False)


def test_manifest_without_its_checksum(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="manifest_sha256 is missing"):
        open_bundle(bundle)


def test_a_manifest_may_be_formatted_otherwise(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(dict(reversed(manifest.items()))))
    open_bundle(bundle)


def test_failed_write_leaves_nothing_and_keeps_the_old(copy: Path) -> None:
    before = sorted(copy.parent.iterdir())

    def fill_the_disk() -> None:
        with new_bundle(copy) as directory:
            (directory / "half").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(PlumeExportError, match="cannot be written: No space left"):
        fill_the_disk()
    assert sorted(copy.parent.iterdir()) == before
    assert open_bundle(copy).manifest.precision == "fp32"


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_bundle_that_was_replaced_while_it_was_open_is_not_read(tmp_path: Path, change: str) -> None:
    bundle = open_bundle(write_small_bundle(tmp_path / "bundle"))
    sha256 = bundle.sha256
    bundle.checked_graph_file("prefill")
    shutil.rmtree(bundle.path)
    if change == "replaced":
        write_small_bundle(bundle.path, checkpoint="another")
    with pytest.raises(BundleError, match=rf"was {change} while it was open(.|\n)*open it again"):
        bundle.checked_graph_file("prefill")
    assert bundle.sha256 == sha256


def test_a_backend_does_not_load_the_graph_that_took_the_place_of_its_own(tmp_path: Path) -> None:
    bundle = open_bundle(write_small_bundle(tmp_path / "bundle"))
    backend = OnnxRuntimeCpu(bundle)
    write_small_bundle(bundle.path, checkpoint="another")
    with pytest.raises(BundleError, match="was replaced while it was open"):
        backend.session("prefill")


def test_a_bundle_that_is_being_made_has_no_manifest_yet(tmp_path: Path) -> None:
    manifest = read_manifest(write_small_bundle(tmp_path / "bundle"))
    (tmp_path / "bundle" / MANIFEST).unlink()
    assert Bundle(tmp_path / "bundle", manifest).checked_graph_file("prefill").is_file()


def test_what_was_not_verified_has_another_key(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "bundle")
    unverified, verified = open_bundle(path, verify_hashes=False), open_bundle(path)
    assert not unverified.is_verified
    assert verified.is_verified
    assert open_bundle(path, verify_hashes="always").is_verified
    assert verified.cache_key == verified.sha256 == unverified.sha256
    assert unverified.cache_key == f"{verified.sha256} unverified"
