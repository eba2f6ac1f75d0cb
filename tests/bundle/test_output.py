"""An output replaces a bundle that holds nothing else, or nothing; anything else is refused before any work."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from plume_export import atomic
from plume_export.bundle import (
    MANIFEST,
    check_new_directory,
    check_output,
    check_writable,
    new_bundle,
    new_directory,
    open_bundle,
)
from plume_export.bundle.output import check_outside_bundles
from plume_export.errors import PlumeExportError

from .small_bundle import write_small_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "bundle")


def assert_refused(output: Path, *parts: str, check: Callable[[Path], None] = check_output) -> None:
    before = around(output)
    with pytest.raises(PlumeExportError) as raised:
        check(output)
    assert raised.value.fix
    for part in parts:
        assert part in raised.value.message
    if check is check_output:
        with pytest.raises(PlumeExportError), new_bundle(output):
            pytest.fail("work was started")
    assert around(output) == before


def around(output: Path) -> list[Path]:
    """What stands beside and in an output."""
    try:
        return sorted([*output.parent.iterdir(), *output.iterdir()])
    except OSError:
        return []


def test_a_bundle_is_replaced_and_said_so(bundle: Path) -> None:
    said: list[str] = []
    with new_bundle(bundle, said.append) as directory:
        assert open_bundle(bundle).manifest.checkpoint.name == "plume"
        write_small_bundle(directory, checkpoint="another", precision="fp32")
    assert open_bundle(bundle).manifest.checkpoint.name == "another"
    assert said == [f"replacing {bundle}: fp16 for onnx, built from plume"]
    assert os.listdir(bundle.parent) == ["bundle"]


def test_an_empty_directory_and_none_are_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none", "a/new/one"):
        with new_bundle(tmp_path / name) as directory:
            write_small_bundle(directory)
        open_bundle(tmp_path / name)


def test_a_web_app_stays(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    for name in (MANIFEST, "index.html", "main.js", "package.json", "style.css"):
        (tmp_path / "app" / name).write_text('{"name": "app", "icons": []}')
    assert_refused(tmp_path / "app", "not a bundle", "index.html, main.js, package.json and 1 more")


def test_a_directory_without_manifest_stays(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "thesis.txt").write_text("years of work")
    assert_refused(tmp_path / "app", "not a bundle", "thesis.txt")
    assert_refused(tmp_path / "app", "already exists", check=check_new_directory)


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"kind": "plume-export bundle"}'])
def test_a_manifest_that_does_not_decode_protects_its_directory(bundle: Path, text: bytes) -> None:
    (bundle / MANIFEST).write_bytes(text)
    assert_refused(bundle, "not a bundle")


def test_a_manifest_of_a_newer_version_protects_its_directory(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text().replace('"schema_version": ', '"schema_version": 9')
    (bundle / MANIFEST).write_text(text)
    assert_refused(bundle, "schema version 9")


@pytest.mark.parametrize("name", ["notes.txt", "selftest/notes.txt", "notes/a.txt", ".notes"])
def test_files_beside_those_of_the_manifest_protect_it(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("mine")
    assert_refused(bundle, "contains files that its manifest does not list", name.split("/a")[0])


def test_many_foreign_files_are_counted(bundle: Path) -> None:
    for number in range(5):
        (bundle / f"note-{number}").touch()
    assert_refused(bundle, "note-0, note-1, note-2 and 2 more")


def test_an_empty_directory_or_a_link_within_a_bundle_protects_it(bundle: Path, tmp_path: Path) -> None:
    (bundle / "mine").mkdir()
    assert_refused(bundle, "mine")
    (bundle / "mine").rmdir()
    (bundle / "tokenizer.json").unlink()
    (bundle / "tokenizer.json").symlink_to(tmp_path / "elsewhere")
    assert_refused(bundle, "tokenizer.json")


def test_a_file_that_comes_during_the_work_stays(bundle: Path) -> None:
    def work() -> None:
        with new_bundle(bundle) as directory:
            write_small_bundle(directory, checkpoint="another")
            (bundle / "notes.txt").write_text("mine")

    with pytest.raises(PlumeExportError, match=r"notes\.txt"):
        work()
    assert (bundle / "notes.txt").read_text() == "mine"
    assert open_bundle(bundle).manifest.checkpoint.name == "plume"


@pytest.mark.parametrize("name", ["notes.txt", "selftest/notes.txt"])
def test_a_file_that_comes_during_the_last_sync_stays(bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def sync(path: Path) -> None:
        (bundle / name).write_text("mine")

    def work() -> None:
        with new_bundle(bundle) as directory:
            write_small_bundle(directory, checkpoint="another")
            monkeypatch.setattr(atomic, "sync", sync)

    with pytest.raises(
        PlumeExportError, match=r"bundle is not replaced: it contains files that its manifest does not list: .*notes"
    ):
        work()
    assert (bundle / name).read_text() == "mine"
    assert open_bundle(bundle).manifest.checkpoint.name == "plume"
    assert os.listdir(bundle.parent) == ["bundle"]


def test_a_file_in_a_new_directory_that_comes_during_the_last_sync_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"

    def sync(path: Path) -> None:
        output.mkdir(exist_ok=True)
        (output / "notes.txt").write_text("mine")

    def work() -> None:
        with new_directory(output):
            monkeypatch.setattr(atomic, "sync", sync)

    with pytest.raises(PlumeExportError, match="output already exists"):
        work()
    assert (output / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["output"]


@pytest.mark.parametrize("is_made", [True, False])
def test_what_a_killed_build_had_moved_aside_survives_a_build_that_fails(bundle: Path, is_made: bool) -> None:
    bundle.rename(bundle.with_name(".bundle.partial-abcd_123.old"))
    if is_made:
        bundle.mkdir()

    def work() -> None:
        with new_bundle(bundle):
            raise PlumeExportError("failed", fix="none")

    with pytest.raises(PlumeExportError, match="failed"):
        work()
    assert open_bundle(bundle).manifest.checkpoint.name == "plume"
    assert os.listdir(bundle.parent) == ["bundle"]


def test_what_was_moved_aside_goes_when_a_whole_bundle_stands(bundle: Path) -> None:
    aside = bundle.with_name(".bundle.partial-abcd_123.old")
    write_small_bundle(aside, checkpoint="aside")
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(ZeroDivisionError), new_bundle(bundle):
        assert 1 / 0
    assert open_bundle(aside).manifest.checkpoint.name == "aside"
    with new_bundle(bundle) as directory:
        assert aside.exists()
        write_small_bundle(directory)
    assert os.listdir(bundle.parent) == ["bundle"]
    write_small_bundle(aside, checkpoint="aside")
    with pytest.raises(ZeroDivisionError), new_bundle(bundle):
        assert 1 / 0
    assert os.listdir(bundle.parent) == ["bundle"]


def test_a_new_directory_is_refused_once_a_bundle_is_restored(bundle: Path) -> None:
    bundle.rename(bundle.with_name(".bundle.partial-abcd_123.old"))
    with pytest.raises(PlumeExportError, match="bundle already exists"), new_directory(bundle):
        pytest.fail("work was started")
    open_bundle(bundle)


def test_a_symbolic_link_and_its_target_stay(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target in ("bundle", "empty", "missing"):
        link = tmp_path / f"link-to-{target}"
        link.symlink_to(target)
        assert_refused(link, "symbolic link to " + target)
        assert link.is_symlink()
    open_bundle(bundle)


def test_a_parent_that_is_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with new_bundle(tmp_path / "link" / "bundle") as directory:
        write_small_bundle(directory)
    open_bundle(tmp_path / "disk" / "bundle")


@pytest.mark.parametrize("check", [check_output, check_new_directory])
def test_inside_a_bundle(bundle: Path, tmp_path: Path, check: Callable[[Path], None]) -> None:
    (tmp_path / "link").symlink_to("bundle")
    for output in (bundle / "cpu", bundle / "selftest" / "deep" / "cpu", tmp_path / "link" / "cpu"):
        assert_refused(output, "is inside the bundle", check=check)


def test_a_file_inside_a_bundle(bundle: Path) -> None:
    with pytest.raises(PlumeExportError, match="is inside the bundle"):
        check_outside_bundles(bundle / "selftest" / "out.npy")
    check_outside_bundles(bundle.parent / "out.npy")


def test_inside_a_bundle_in_a_cache_of_downloads(bundle: Path, tmp_path: Path) -> None:
    (bundle / MANIFEST).rename(tmp_path / "blob")
    (bundle / MANIFEST).symlink_to("../blob")
    with pytest.raises(PlumeExportError, match="is inside the bundle"):
        check_outside_bundles(bundle / "out.npy")


def test_files_that_cannot_be_written(bundle: Path) -> None:
    os.mkfifo(bundle.parent / "pipe")
    for name, text in (
        ("bundle/selftest/out.npy", "is inside the bundle"),
        ("n" * 250, "too long"),
        ("n" * 300, "too long"),
        ("p" * 300 + "/a", "too long"),
        ("pipe", "not a regular file"),
        ("bundle", "cannot be written"),
    ):
        with pytest.raises(PlumeExportError, match=text):
            check_writable(bundle.parent / name)
    check_writable(bundle.parent / "out.npy")


def test_inputs_and_outputs_are_apart(bundle: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (tmp_path / "link").symlink_to("checkpoint")
    for output, given, text in (
        (checkpoint / "onnx", checkpoint, "is inside its input"),
        (checkpoint / "a" / "onnx", tmp_path / "link", "is inside its input"),
        (tmp_path / "link" / "onnx", checkpoint, "is inside its input"),
        (checkpoint, checkpoint, "is also the input"),
        (bundle, bundle / "selftest", "is inside the output"),
    ):
        with pytest.raises(PlumeExportError, match=text):
            check_output(output, [given])
    check_output(tmp_path / "checkpoint-onnx", [checkpoint])
    check_output(tmp_path / "new", [tmp_path / "missing"])
    (tmp_path / "organisation").mkdir()
    check_output(tmp_path / "organisation", [tmp_path / "organisation" / "hub-id"])


def test_the_current_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for output in (Path("."), Path(""), Path("/"), tmp_path / "here", tmp_path):
        assert_refused(output, "is the current directory or contains it")
    for output in (Path(".."), tmp_path / "other" / ".."):
        assert_refused(output, "ends in '..'")


@pytest.mark.parametrize("name", ["n" * 234, "n" * 250, "n" * 300, "ü" * 117])
def test_a_name_too_long_for_the_hidden_ones(tmp_path: Path, name: str) -> None:
    assert_refused(tmp_path / name, f"has {len(os.fsencode(name))} bytes; the file system allows 233")


def test_the_longest_name(tmp_path: Path) -> None:
    output = tmp_path / ("n" * 233)
    for _ in range(2):
        with new_bundle(output) as directory:
            write_small_bundle(directory)
    open_bundle(output)


def test_a_long_parent_and_a_nul(tmp_path: Path) -> None:
    assert_refused(tmp_path / ("p" * 300) / "bundle", "File name too long")
    with pytest.raises(PlumeExportError, match="NUL"):
        check_output(tmp_path / "a\0b")


def test_files_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(tmp_path / "file", "is a file")
    assert_refused(tmp_path / "file" / "bundle", "is a file")
    assert_refused(tmp_path / "file" / "a" / "bundle", "is a file")


def test_a_parent_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # root may write everywhere
    assert_refused(tmp_path / "a" / "bundle", f"{tmp_path} is not writable")


def test_a_build_that_goes_on_is_seen_before_any_work(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "bundle") as directory:
        with pytest.raises(PlumeExportError, match="written by another process"):
            check_output(tmp_path / "bundle")
        write_small_bundle(directory)
    check_output(tmp_path / "bundle")
