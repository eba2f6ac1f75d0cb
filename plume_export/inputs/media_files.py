"""Find image and video files: by suffix, in folders, and as file names that were passed as text."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ..errors import InputError
from .notice import Notice

PICTURE_SUFFIXES = frozenset(
    (
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".ico", ".tga", ".avif", ".heic", ".heif", ".hif",
    )
)  # fmt: skip
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".3gp", ".flv", ".ogv", ".wmv", ".mts")
)


def notices_of_text(text: str) -> list[Notice]:
    """Return a notice if a text is the path of an existing image or video. Only texts with a media suffix are looked up."""
    name = text.strip()
    suffix = PurePath(name[-16:]).suffix.lower()
    detail = "image" if suffix in PICTURE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else ""
    if not detail or not os.path.isfile(name):
        return []
    return [Notice("text names a file", name, detail=detail)]


@dataclass(frozen=True)
class FolderFiles:
    """The media files of a folder, sorted, and why other files and folders were skipped."""

    files: list[Path]
    skipped: dict[Path, str]


def find_pictures(folder: Path) -> FolderFiles:
    """Return the images below `folder`. Hidden files and folders are ignored.

    A link to a parent folder is not followed. An image that is also reached through a link is listed once, under its own path.
    Raises InputError if the folder is missing, cannot be read or has no image.
    """
    return _found(folder, PICTURE_SUFFIXES, "image", "pass a folder with PNG, JPEG, WebP or other image files")


def find_media(folder: Path) -> FolderFiles:
    """Return the images and videos below `folder`, with the rules of `find_pictures`."""
    return _found(folder, PICTURE_SUFFIXES | VIDEO_SUFFIXES, "image or video", "pass a folder with image or video files")


def is_named_as_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES


def _found(folder: Path, suffixes: frozenset[str], noun: str, fix: str) -> FolderFiles:
    if not os.path.isdir(folder):  # pathlib raises OSError if a name is too long
        raise InputError(f"{folder} is not a folder.", fix="pass --in FOLDER with images")
    walk = _Walk(os.path.realpath(folder), suffixes, noun)
    walk.enter(folder, walk.root)
    while walk.links:
        walk.follow(*walk.links.popleft())
    if folder in walk.skipped:
        raise InputError(f"{folder} is {walk.skipped[folder]}.", fix="check its permissions")
    if not walk.found:
        count = len(walk.skipped)
        raise InputError(f"{folder} has no {noun}{f' among its {count} files' if count else ': it is empty'}.", fix=fix)
    return FolderFiles(sorted(walk.found), dict(sorted(walk.skipped.items())))


@dataclass
class _Walk:
    """A walk over folders. Links are followed last. `links` has each link with the real path of the folder that contains it."""

    root: str
    suffixes: frozenset[str]
    noun: str
    found: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    links: deque[tuple[Path, str]] = field(default_factory=deque)
    folders: set[tuple[int, int]] = field(default_factory=set)  # device and inode
    files: set[str] = field(default_factory=set)  # real paths of the files found

    def enter(self, top: Path, real_top: str) -> None:
        """Add a folder and its subfolders. A folder that was already visited is skipped."""
        stack = [(top, real_top)]
        while stack:
            folder, real = stack.pop()
            try:
                if self._was_entered(real):
                    continue
                self.folders.add(_identity(real))
                with os.scandir(real) as entries:
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        self._sort_in(entry, folder, real, stack)
            except OSError as error:
                self.skipped[folder] = f"a folder that cannot be read: {error.strerror}"

    def _sort_in(self, entry: os.DirEntry[str], folder: Path, real: str, stack: list[tuple[Path, str]]) -> None:
        path = folder / entry.name
        if entry.name.startswith("."):
            return
        if entry.is_symlink():
            self.links.append((path, real))
        elif entry.is_dir(follow_symlinks=False):
            stack.append((path, entry.path))
        else:
            self._add(path, entry.path, is_file=entry.is_file(follow_symlinks=False))

    def follow(self, link: Path, real_parent: str) -> None:
        """Add the target of a link."""
        target = os.path.realpath(link)
        try:
            if not os.path.exists(target):
                self.skipped[link] = "a link in a loop" if os.path.islink(target) else "a broken link"
            elif not os.path.isdir(target):
                self._add(link, target, is_file=os.path.isfile(target))
            elif not self._was_entered(target) and any(_is_above(target, place) for place in (real_parent, self.root)):
                self.skipped[link] = "a link to a parent folder"
            else:
                self.enter(link, target)
        except OSError as error:
            self.skipped[link] = f"a link that cannot be followed: {error.strerror}"

    def _was_entered(self, folder: str) -> bool:
        return _identity(folder) in self.folders

    def _add(self, file: Path, real: str, *, is_file: bool) -> None:
        if real in self.files:
            return
        if not is_file:
            self.skipped[file] = "neither a file nor a folder"
        elif file.suffix.lower() not in self.suffixes:
            self.skipped[file] = f"not an {self.noun} by its suffix"
        else:
            self.files.add(real)
            self.found.append(file)


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_above(folder: str, place: str) -> bool:
    return place != folder and Path(place).is_relative_to(folder)
