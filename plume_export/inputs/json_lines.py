"""Where inputs come from: the lines of a file or of a stream, or the arguments of a command."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from .item import Item, item_from_json
from .media_files import VIDEO_SUFFIXES, find_media


@dataclass(frozen=True)
class Source:
    """One input before it is read: its id, and how to read it. `read` raises InputError.

    `content` is what was given for it, with the size, times and inode of its files; a run that goes on compares it.
    `line` is the number of its line, if it has one.
    """

    id: str
    read: Callable[[], Item]
    content: str = ""
    line: int | None = None


@dataclass(frozen=True)
class Inputs:
    """Sources that are made as they are iterated, and how many there are. None: that cannot be told, as of a pipe.

    `left_out` are the files of folders that are none, and why.
    """

    sources: Iterable[Source]
    count: int | None
    left_out: dict[Path, str] = field(default_factory=dict)


def inputs_from_file(path: Path) -> Inputs:
    """Return one source a line of a JSON lines file; blank lines are left out. Raises InputError if it cannot be read.

    The file is read twice: once to check and count it, then as its lines are needed.
    """
    lines = _lines_of_file(path)
    return Inputs(lines, None if os.path.exists(path) and not os.path.isfile(path) else sum(1 for _ in lines.numbered()))


def inputs_from_stream(stream: IO[bytes] | None) -> Inputs:
    """Return one source a line of JSON lines on standard input, read as they are needed; paths start at the current directory.

    Raises InputError if it is closed, or ends before the first line that is not blank.
    """
    name, fix = "standard input", 'pipe JSON lines into it, as {"text": "..."}'
    if stream is None:
        raise InputError("Standard input is closed.", fix=fix)
    first: list[bytes] = []
    try:
        for line in stream:
            first.append(line)
            if line.strip():
                return Inputs(_Lines(name, Path(), lambda: nullcontext(chain(first, stream))), None)
    except OSError as error:
        raise InputError(f"Standard input cannot be read: {error.strerror or error}.", fix=fix) from None
    raise InputError("Standard input is empty.", fix=fix)


def inputs_from_arguments(arguments: Sequence[str], text: str | None) -> Inputs:
    """Return one source a file, each together with `text`; without files, the text alone.

    A folder stands for the pictures and videos below it, sorted by path. Raises InputError for one without any.
    """
    text = text or ""
    if not arguments:
        return Inputs([Source("0", lambda: Item(text=text), text)], 1)
    files: list[str] = []
    left_out: dict[Path, str] = {}
    for argument in arguments:
        if os.path.isdir(argument):  # pathlib raises OSError for a name that is too long
            found = find_media(Path(argument))
            files += map(str, found.files)
            left_out |= found.skipped
        else:
            files.append(argument)
    sources = [Source(file, _FileReader(file, text), f"{text} {_state_of(Path(file))}") for file in files]
    return Inputs(sources, len(files), left_out)


def sources_from_file(path: Path) -> list[Source]:
    """Return the sources of a JSON lines file, all at once. Raises InputError if it cannot be read."""
    return list(_lines_of_file(path))


def _lines_of_file(path: Path) -> "_Lines":
    return _Lines(str(path), path.parent, lambda: path.open("rb"))


@dataclass(frozen=True)
class _Lines:
    """JSON lines. `name` is what a message calls them, relative paths start at `directory`."""

    name: str
    directory: Path
    open: Callable[[], AbstractContextManager[Iterable[bytes]]]

    def __iter__(self) -> Iterator[Source]:
        for number, line in self.numbered():
            fields = _fields(line)
            states = [_state_of(self.directory / name) for key in ("image", "video") for name in _names(fields.get(key))]
            identity = fields.get("id")
            name = f"line {number}" if identity is None else str(identity)
            reader = _LineReader(f"{self.name} line {number}", self.directory, line)
            yield Source(name, reader, " ".join((line, *states)), number)

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of every line that is not blank."""
        try:
            with self.open() as lines:
                for number, line in enumerate(lines, start=1):
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\n")
                    if text.strip():
                        yield number, text
        except (OSError, ValueError) as error:  # a NUL in the path, or bytes that are not UTF-8
            raise InputError(f"The inputs file {self.name} cannot be read: {error}.", fix="pass UTF-8 JSON lines") from None


@dataclass(frozen=True)
class _LineReader:
    place: str
    directory: Path
    line: str

    def __call__(self) -> Item:
        try:
            return item_from_json(self.line, self.directory)
        except InputError as error:
            error.add_place(self.place)
            raise


@dataclass(frozen=True)
class _FileReader:
    file: str
    text: str

    def __call__(self) -> Item:
        if Path(self.file).suffix.lower() in VIDEO_SUFFIXES:
            return Item(text=self.text, video=self.file)
        return Item(text=self.text, images=(self.file,))


def _fields(line: str) -> dict[str, Any]:
    """Return what a line holds; nothing where it cannot be read."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _names(media: object) -> list[str]:
    """Return the files of a line's image or video."""
    return [name for name in (media if isinstance(media, list) else [media]) if isinstance(name, str)]


def _state_of(file: Path) -> str:
    """Return what tells a file from another in its place: `cp -p` keeps its size and time, but not its inode or ctime."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # reading it will tell why
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
