"""What a folder's walk finds: links of every kind, loops, and what is no picture."""

import os
from pathlib import Path

import pytest

from plume_export.errors import InputError
from plume_export.inputs.media_files import find_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pictures/a.png", "pictures/more/b.JPG", "elsewhere/c.png", "elsewhere/deep/d.webp"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "pictures"


def names(folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in find_pictures(folder).files]


def reasons(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): reason for file, reason in find_pictures(folder).skipped.items()}


def test_links_to_folders_and_files_are_followed(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "d.png").write_bytes(b"")
    (folder / "one.png").symlink_to(folder.parent / "d.png")
    assert names(folder) == ["a.png", "link/c.png", "link/deep/d.webp", "more/b.JPG", "one.png"]
    assert reasons(folder) == {}


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert names(link) == ["a.png", "more/b.JPG"]


def test_a_picture_that_is_reached_twice_is_one_by_its_own_name(folder: Path) -> None:
    (folder / "0.png").symlink_to("a.png")
    (folder / "00").symlink_to("more")
    (folder / "latest").symlink_to("a.png")
    assert names(folder) == ["a.png", "more/b.JPG"]
    assert reasons(folder) == {}


def test_copies_and_hard_links_are_pictures_of_their_own(folder: Path) -> None:
    os.link(folder / "a.png", folder / "z.png")
    assert names(folder) == ["a.png", "more/b.JPG", "z.png"]


def test_loops_end(folder: Path) -> None:
    (folder / "here").symlink_to(".")
    (folder / "more" / "back").symlink_to(folder)
    (folder / "more" / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "x").symlink_to("y")
    (folder / "y").symlink_to("x")
    (folder / "out").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere" / "in").symlink_to(folder)
    assert names(folder) == ["a.png", "more/b.JPG", "out/c.png", "out/deep/d.webp"]
    itself = "a link in a loop"
    assert reasons(folder) == {"self": itself, "x": itself, "y": itself}


def test_a_link_to_a_folder_above_takes_in_nothing(folder: Path) -> None:
    (folder / "up").symlink_to("..")
    (folder / "root").symlink_to("/")
    (folder / "out").symlink_to(folder.parent / "elsewhere" / "deep")
    (folder.parent / "elsewhere" / "deep" / "above").symlink_to("..")
    assert names(folder) == ["a.png", "more/b.JPG", "out/d.webp"]
    above = "a link to a parent folder"
    assert reasons(folder) == {"up": above, "root": above, "out/above": above}


def test_a_link_names_the_kind_of_its_file(folder: Path) -> None:
    """As in a store where files go by their hashes."""
    (folder / "0123abcd").write_bytes(b"")
    (folder / "cat.png").symlink_to("0123abcd")
    assert names(folder) == ["a.png", "cat.png", "more/b.JPG"]
    assert reasons(folder) == {"0123abcd": "not an image by its suffix"}


def test_what_is_left_out_says_why(folder: Path) -> None:
    (folder / "gone.png").symlink_to("nothing.png")
    (folder / "notes.txt").write_text("")
    os.mkfifo(folder / "pipe.png")
    for hidden in (".a.png", ".b/c.png"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_bytes(b"")
    assert names(folder) == ["a.png", "more/b.JPG"]
    assert reasons(folder) == {
        "gone.png": "a broken link",
        "notes.txt": "not an image by its suffix",
        "pipe.png": "neither a file nor a folder",
    }


def test_a_folder_that_vanishes_or_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def failing(path: str) -> object:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    assert names(folder) == ["a.png"]
    assert reasons(folder) == {"more": "a folder that cannot be read: Permission denied"}
    (folder / "more").rename(folder.parent / "more")
    with pytest.raises(InputError, match="is a folder that cannot be read: Permission denied"):
        find_pictures(folder.parent / "more")


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".avif", ".jfif", ".tif", ".jp2"])
def test_photographs_of_every_kind_count(folder: Path, suffix: str) -> None:
    (folder / f"z{suffix}").write_bytes(b"")
    assert names(folder)[-1] == f"z{suffix}"


def test_a_name_that_is_too_long_is_no_folder(folder: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        find_pictures(folder / ("x" * 300))
