"""A search result for a script, and what it left out in a line."""

import os
from pathlib import Path

import msgspec

from ..printable import printable_line
from .search import SearchResult


class HitReport(msgspec.Struct, frozen=True):
    """A picture, the same as a file URI, and its cosine to the query (-1 to 1)."""

    file: str
    uri: str
    score: float


class SkippedReport(msgspec.Struct, frozen=True):
    """A file or folder that was left out, and why."""

    file: str
    reason: str


class SearchReport(msgspec.Struct, frozen=True):
    """The best hits, best first, of all `pictures`; `embedded` contents were new.

    `exif_transpose`: pictures were turned upright by their EXIF rotation.
    Where a name has bytes that are no UTF-8, `file` has them as `\\xe9`; `uri` has every name exactly.
    """

    folder: str
    pictures: int
    embedded: int
    hits: list[HitReport]
    skipped: list[SkippedReport]
    page: str | None = None
    exif_transpose: bool = False


def report_from_result(result: SearchResult, page: Path | None = None) -> SearchReport:
    """Return the report; `page` was written for it."""
    return SearchReport(
        folder=_text(str(result.folder)),
        pictures=result.pictures,
        embedded=result.embedded,
        hits=[HitReport(_text(str(hit.file)), file_uri(hit.file), hit.score) for hit in result.hits],
        skipped=[SkippedReport(_text(str(file)), _text(reason)) for file, reason in result.skipped.items()],
        page=None if page is None else _text(str(page)),
        exif_transpose=result.exif_transpose,
    )


def skipped_line(result: SearchResult) -> str:
    """Return how many files were left out, and one of them, a picture by its name if there is one."""
    file = next(iter(result.broken or result.skipped))
    return f"skipped {len(result.skipped)} files, as {result.shown_name(file)}: {printable_line(result.skipped[file])}"


def file_uri(file: Path) -> str:
    """Return the address of a file, links resolved: a browser would take `..` out of a path before it looks at links."""
    return Path(os.path.realpath(file)).as_uri()


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
