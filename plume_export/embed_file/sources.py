"""Where inputs come from: the lines of a file, or the arguments of a command."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..preprocess import Item, item_from_json

_VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"}


@dataclass(frozen=True)
class Source:
    """One input before it is read: its id, and how to read it. `read` raises InputError.

    `content` is what was given for it; a run that goes on compares it.
    """

    id: str
    read: Callable[[], Item]
    content: str = ""


@dataclass(frozen=True)
class Inputs:
    """Sources that are made as they are iterated, and how many there are. None: that can not be told, as of a pipe."""

    sources: Iterable[Source]
    count: int | None


def inputs_from_file(path: Path) -> Inputs:
    """Return one source a line of a JSON lines file; blank lines are left out. Raises InputError if it can not be read.

    The file is read twice: once to check and count it, then as its lines are needed.
    """
    lines = _Lines(path)
    return Inputs(lines, None if path.exists() and not path.is_file() else sum(1 for _ in lines.numbered()))


def inputs_from_arguments(files: Sequence[str], text: str | None) -> Inputs:
    """Return one source a file, each together with `text`; without files, the text alone."""
    text = text or ""
    if not files:
        return Inputs([Source("0", lambda: Item(text=text), text)], 1)
    return Inputs([Source(file, _FileReader(file, text), text) for file in files], len(files))


def sources_from_file(path: Path) -> list[Source]:
    """Return the sources of a JSON lines file, all at once. Raises InputError if it can not be read."""
    return list(_Lines(path))


@dataclass(frozen=True)
class _Lines:
    path: Path

    def __iter__(self) -> Iterator[Source]:
        for number, line in self.numbered():
            yield Source(_line_id(line, number), _LineReader(self.path, number, line), line)

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of every line that is not blank."""
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\n")
                    if text.strip():
                        yield number, text
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"The inputs file {self.path} can not be read: {error}.", fix="pass a UTF-8 JSON lines file"
            ) from None


@dataclass(frozen=True)
class _LineReader:
    path: Path
    number: int
    line: str

    def __call__(self) -> Item:
        try:
            return item_from_json(self.line, self.path.parent)
        except InputError as error:
            raise InputError(f"{self.path} line {self.number}: {error}") from None


@dataclass(frozen=True)
class _FileReader:
    file: str
    text: str

    def __call__(self) -> Item:
        if Path(self.file).suffix.lower() in _VIDEO_SUFFIXES:
            return Item(text=self.text, video=self.file)
        return Item(text=self.text, images=(self.file,))


def _line_id(line: str, number: int) -> str:
    """The line's own id, or its number where it has none or can not be read."""
    try:
        value = json.loads(line).get("id")
    except (ValueError, AttributeError, RecursionError):
        value = None
    return f"line {number}" if value is None else str(value)
