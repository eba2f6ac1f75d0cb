"""Notices about a run's inputs, shown once per run: not errors, but signs that an input was not read as the user intended."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

# Above this number of tokens, prefill takes minutes and gigabytes on most machines.
LONG_PROMPT_TOKENS = 8192
FEWER_FRAMES = 32

NoticeKind = Literal[
    "rotation ignored", "rotation unreadable", "transparency dropped", "frames ignored", "text names a file", "long prompt"
]


@dataclass(frozen=True)
class Notice:
    """A fact about one image, text or prompt. `name` is the name that the user knows it by."""

    kind: NoticeKind
    name: str
    detail: str = ""  # the kind of transparency that was dropped; "image" or "video" for a text that names a file
    token_count: int = 0  # for a long prompt
    fewer_token_count: int | None = None  # for a long prompt: its tokens if the video file were sampled at FEWER_FRAMES


# Receives the notices of an input after it was prepared.
Notify: TypeAlias = Callable[[Iterable[Notice]], None]


class NoticeTally:
    """Counts the notices of a run. Memory use does not grow with their number."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._shown: dict[tuple[str, str], Notice] = {}

    def add(self, notices: Iterable[Notice]) -> None:
        """Count notices. Only the first one of each kind is shown; for long prompts, the longest."""
        for notice in notices:
            key = notice.kind, notice.detail
            self._counts[key] = self._counts.get(key, 0) + 1
            if notice.token_count > self._shown.setdefault(key, notice).token_count:
                self._shown[key] = notice

    def lines(self) -> list[str]:
        """Return one line per kind, for the command line."""
        return [_line(notice, self._counts[key], is_python=False) for key, notice in self._shown.items()]

    def warn(self, *, stacklevel: int = 2) -> None:
        """Issue one UserWarning per kind. `stacklevel` is that of `warnings.warn`, relative to the caller."""
        for key, notice in self._shown.items():
            warnings.warn(_line(notice, self._counts[key], is_python=True), UserWarning, stacklevel=stacklevel + 1)


def _line(notice: Notice, count: int, *, is_python: bool) -> str:
    if notice.kind == "rotation ignored":
        switch = "exif_transpose=True" if is_python else "--exif-transpose"
        return (
            f"{_subject(notice, count, 'image')} {_verb(count, 'has', 'have')} an EXIF rotation, which was "
            f"ignored as in the original code; {switch} rotates images upright"
        )
    if notice.kind == "rotation unreadable":
        return (
            f"{_subject(notice, count, 'image')} {_verb(count, 'has', 'have')} an EXIF block that cannot be read "
            f"and {_verb(count, 'was', 'were')} embedded as stored; if needed, rotate "
            f"{_verb(count, 'it', 'them')} upright in an image editor"
        )
    if notice.kind == "transparency dropped":
        return (
            f"{_subject(notice, count, 'image')} {_verb(count, 'has', 'have')} {notice.detail}: transparency was "
            "dropped, as in the original code; convert to RGBA to composite on white"
        )
    if notice.kind == "frames ignored":
        return (
            f"{_subject(notice, count, 'image')} {_verb(count, 'has', 'have')} several frames or pages: only the first was "
            'embedded; pass an animation as {"video": path}, pages as {"image": [page, ...]}'
        )
    if notice.kind == "text names a file":
        way = f"{{{notice.detail!r}: {notice.name!r}}}"
        if not is_python:
            way = f"{way} in JSON lines, or the file to embed" + (", or --image to search" if notice.detail == "image" else "")
        return (
            f"{_subject(notice, count, 'text')} {_verb(count, 'names', 'name')} an existing {notice.detail} file, but "
            f"{_verb(count, 'was', 'were')} embedded as text; to embed the {notice.detail}, pass {way}"
        )
    return _long_prompt_line(notice, count, is_python=is_python)


def _long_prompt_line(notice: Notice, count: int, *, is_python: bool) -> str:
    others = "" if count == 1 else f", the longest of {count:,} inputs above {LONG_PROMPT_TOKENS:,}"
    line = f"{notice.name}: {notice.token_count:,} tokens{others}; prefill time and memory grow with tokens"
    if notice.fewer_token_count is None:
        return line
    option = f"video_frames={FEWER_FRAMES}" if is_python else f"--video-frames {FEWER_FRAMES}"
    return f"{line}; {option} reduces it to about {notice.fewer_token_count:,} tokens"


def _subject(notice: Notice, count: int, noun: str) -> str:
    return notice.name if count == 1 else f"{count:,} {noun}s (the first: {notice.name})"


def _verb(count: int, singular: str, plural: str) -> str:
    return singular if count == 1 else plural
