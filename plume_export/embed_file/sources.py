"""Where inputs come from: the lines of a file, or the arguments of a command."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..preprocess import Item, item_from_json
from ..preprocess.suffixes import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Source:
    """One input before it is read: its id, and how to read it. `read` raises InputError.

    `content` is what was given for it, with the size and the time of change of its files; a run that goes on compares it.
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
    sources = [Source(file, _FileReader(file, text), f"{text} {_state_of(Path(file))}") for file in files]
    return Inputs(sources, len(files))


def sources_from_file(path: Path) -> list[Source]:
    """Return the sources of a JSON lines file, all at once. Raises InputError if it can not be read."""
    return list(_Lines(path))


@dataclass(frozen=True)
class _Lines:
    path: Path

    def __iter__(self) -> Iterator[Source]:
        for number, line in self.numbered():
            fields = _fields(line)
            states = [_state_of(self.path.parent / name) for key in ("image", "video") for name in _names(fields.get(key))]
            identity = fields.get("id")
            name = f"line {number}" if identity is None else str(identity)
            yield Source(name, _LineReader(self.path, number, line), " ".join((line, *states)))

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
            error.add_place(f"{self.path} line {self.number}")
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
    """Return what a line holds; nothing where it can not be read."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _names(media: object) -> list[str]:
    """Return the files of a line's image or video."""
    return [name for name in (media if isinstance(media, list) else [media]) if isinstance(name, str)]


def _state_of(file: Path) -> str:
    try:
        found = file.stat()
    except (OSError, ValueError):  # reading it will tell why
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"
