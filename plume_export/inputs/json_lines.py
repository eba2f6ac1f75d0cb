"""Sources of inputs: the lines of a file, standard input, or command-line arguments."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..errors import InputError
from .item import Item, JsonLine
from .media_files import VIDEO_SUFFIXES, find_media


@dataclass(frozen=True)
class Source:
    """One input before it is read: its id and a function to read it. `read` raises InputError.

    `content` is what the user passed, with the size, times and inode of the files. A resumed run checks that it has not
    changed. `line` is the input's line number, if it came from JSON lines.
    """

    id: str
    read: Callable[[], Item]
    content: str = ""
    line: int | None = None


@dataclass
class BlankLines:
    """The number of blank lines read so far. They have no row in the output."""

    count: int = 0


@dataclass(frozen=True)
class Inputs:
    """Sources, created while iterating, and their `count` (None if it is unknown, as for a pipe).

    `left_out` maps skipped files of folders to reasons. `blank_lines` grows while `sources` is iterated.
    """

    sources: Iterable[Source]
    count: int | None
    left_out: dict[Path, str] = field(default_factory=dict)
    blank_lines: BlankLines = field(default_factory=BlankLines)


def inputs_from_file(path: Path) -> Inputs:
    """Return one source per line of a JSON lines file; blank lines are skipped. Raises InputError if the file cannot be read.

    The file is read twice: once to check and count its lines, then line by line as inputs are needed.
    """
    lines = _lines_of_file(path)
    count = None if os.path.exists(path) and not os.path.isfile(path) else sum(1 for _ in lines.numbered())
    return Inputs(lines, count, blank_lines=lines.blank)


def inputs_from_stream(stream: IO[bytes] | None) -> Inputs:
    """Return one source per JSON line on standard input, read as needed. Relative paths start at the current directory.

    Raises InputError if standard input is closed. Empty input is not an error.
    """
    if stream is None:
        raise InputError("Standard input is closed.", fix='pipe JSON lines into it, such as {"text": "..."}')
    lines = _Lines("standard input", Path(), lambda: nullcontext(stream))
    return Inputs(lines, None, blank_lines=lines.blank)


def inputs_from_arguments(arguments: Sequence[str], text: str | None) -> Inputs:
    """Return one source per file, each combined with `text`. Without files, return the text alone.

    A folder stands for all images and videos below it, sorted by path. Raises InputError for a folder without any.
    """
    text = text or ""
    if not arguments:
        return Inputs([Source("0", lambda: Item(text=text), text)], 1)
    files: list[str] = []
    left_out: dict[Path, str] = {}
    for argument in arguments:
        if os.path.isdir(argument):  # pathlib raises OSError if a name is too long
            found = find_media(Path(argument))
            files += map(str, found.files)
            left_out |= found.skipped
        else:
            files.append(argument)
    sources = [Source(file, _FileReader(file, text), f"{text} {_state_of(Path(file))}") for file in files]
    return Inputs(sources, len(files), left_out)


def sources_from_file(path: Path) -> list[Source]:
    """Return all sources of a JSON lines file as a list. Raises InputError if the file cannot be read."""
    return list(_lines_of_file(path))


def _lines_of_file(path: Path) -> "_Lines":
    return _Lines(str(path), path.parent, lambda: path.open("rb"))


@dataclass(frozen=True)
class _Lines:
    """JSON lines from a file or stream. `name` appears in messages. Relative paths start at `directory`."""

    name: str
    directory: Path
    open: Callable[[], AbstractContextManager[Iterable[bytes]]]
    blank: BlankLines = field(default_factory=BlankLines)

    def __iter__(self) -> Iterator[Source]:
        for number, text in self.numbered():
            line = JsonLine.parse(text, self.directory, f"{self.name} line {number}")
            identity = line.fields.get("id")
            name = f"line {number}" if identity is None else str(identity)
            states = [_state_of(Path(file)) for file in line.files]
            yield Source(name, line.item, " ".join((text, *states)), number)

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of every line that is not blank, and count the others."""
        self.blank.count = 0
        try:
            with self.open() as lines:
                for number, line in enumerate(lines, start=1):
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\n")
                    if text.strip():
                        yield number, text
                    else:
                        self.blank.count += 1
        except (OSError, ValueError) as error:  # a NUL in the path, or bytes that are not UTF-8
            raise InputError(f"The inputs in {self.name} cannot be read: {error}.", fix="pass UTF-8 JSON lines") from None


@dataclass(frozen=True)
class _FileReader:
    file: str
    text: str

    def __call__(self) -> Item:
        if Path(self.file).suffix.lower() in VIDEO_SUFFIXES:
            return Item(text=self.text, video=self.file)
        return Item(text=self.text, images=(self.file,))


def _state_of(file: Path) -> str:
    """Return a text that changes when a file is replaced. It has inode and ctime, because `cp -p` keeps size and mtime."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # the error is raised when the file is read
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
