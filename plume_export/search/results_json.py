"""A search result as JSON, and a line about skipped files."""

import os
from pathlib import Path

import msgspec

from ..printable import printable_line
from .search import SearchResult


class HitReport(msgspec.Struct, frozen=True):
    """An image, its file URI, and its cosine similarity to the query (-1 to 1)."""

    file: str
    uri: str
    score: float


class SkippedReport(msgspec.Struct, frozen=True):
    """A file or folder that was skipped, and the reason."""

    file: str
    reason: str


class SearchReport(msgspec.Struct, frozen=True):
    """The best hits, best first. `pictures` is the number of images that were ranked.

    `embedded` is the number of images that were not in the cache; files of equal content count once. `exif_transpose` is True
    if images were rotated by their EXIF orientation. If a name has bytes that are not UTF-8, `file` escapes them as `\xe9`;
    `uri` represents every name exactly.
    """

    folder: str
    pictures: int
    embedded: int
    hits: list[HitReport]
    skipped: list[SkippedReport]
    page: str | None = None
    exif_transpose: bool = False


def report_from_result(result: SearchResult, page: Path | None = None) -> SearchReport:
    """Return the report. `page` is the HTML page that was written, if any."""
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
    """Return the number of skipped files and one example, preferably a file with an image suffix."""
    file = next(iter(result.broken or result.skipped))
    return f"skipped {len(result.skipped)} files, such as {result.shown_name(file)}: {printable_line(result.skipped[file])}"


def file_uri(file: Path) -> str:
    """Return the file's URI with symbolic links resolved.

    A browser removes `..` from a path before symbolic links are followed, so an unresolved path could lead to the wrong file.
    """
    return Path(os.path.realpath(file)).as_uri()


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
