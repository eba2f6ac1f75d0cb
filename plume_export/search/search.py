"""Rank the pictures of a folder by a query."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import __version__
from ..bundle import sha256_of_file
from ..embed_file import EmbedResult, OnError, Source, embed_sources
from ..errors import InputError
from ..preprocess import Item
from ..preprocess.notice import Notify
from ..progress import OpenProgress
from ..runtime.embedder import Embedder
from ..stages import FloatArray
from .cache import EmbeddingCache

PICTURE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".ico", ".tga")
)
# What is embedded is stored after this many files, so that a search that was stopped goes on from there.
_CHUNK = 64


@dataclass(frozen=True)
class Hit:
    """A picture and its cosine to the query."""

    file: Path
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The best hits, best first. `embedded` contents were new; `skipped` names the files left out and why."""

    query: Item
    folder: Path
    hits: list[Hit]
    pictures: int
    embedded: int
    skipped: dict[Path, str]

    def shown_name(self, hit: Hit) -> str:
        """The file's name below the folder, whatever bytes it has, as text that can be printed."""
        return str(hit.file.relative_to(self.folder)).encode("utf-8", "replace").decode()


def search_folder(
    embedder: Embedder,
    folder: Path,
    query: Item,
    *,
    cache: EmbeddingCache,
    top: int,
    batch_size: int | None,
    on_error: OnError,
    progress: OpenProgress,
    notify: Notify = lambda _: None,
) -> SearchResult:
    """Embed what the cache does not know, then rank all pictures below `folder`; hidden files are left out.

    With `on_error="skip"` files that are no pictures are counted and left out; with "fail" the first raises InputError, as does
    a folder that is missing or has no picture.
    """
    pictures, others = _files_in(folder)
    if others and on_error == "fail":
        raise InputError(f"{others[0]} is no picture.", fix="move it out of the folder, or --on-error skip")
    skipped = dict.fromkeys(others, "no picture")
    prepared_query = embedder.prepare(query)
    notify(prepared_query.notices)
    query_embedding = embedder.embed_prepared([prepared_query])[0]
    files_by_hash = _files_by_hash(pictures, cache, skipped, on_error)
    # Another version may prepare pictures otherwise.
    bundle = f"{__version__} {embedder.bundle.sha256}"
    known = cache.embeddings(bundle, files_by_hash, embedder.dimension)
    new = {key: files for key, files in files_by_hash.items() if key not in known}
    if new:
        with progress(len(new), "pictures") as advance:
            for start in range(0, len(new), _CHUNK):
                chunk = dict(list(new.items())[start : start + _CHUNK])
                sources = [_source(files[0]) for files in chunk.values()]
                result = embed_sources(
                    embedder, sources, batch_size=batch_size, on_error=on_error, advance=advance, notify=notify
                )
                known |= _store(result, chunk, bundle, cache, skipped)
    found = {file: key for key, files in files_by_hash.items() if key in known for file in files}
    if not found:
        raise InputError(
            f"{folder} has no picture that can be embedded: {skipped[pictures[0]].splitlines()[0]}",
            fix="pass a folder with whole image files, and a bundle that takes pictures",
        )
    scores = np.stack([known[key] for key in found.values()]) @ query_embedding
    files = list(found)
    hits = [Hit(files[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")[:top]]
    return SearchResult(query, folder, hits, len(found), len(new), skipped)


def _files_by_hash(
    pictures: list[Path], cache: EmbeddingCache, skipped: dict[Path, str], on_error: OnError
) -> dict[str, list[Path]]:
    """Group files of equal content, which are embedded once. Adds what can not be read to `skipped`."""
    files_by_hash: dict[str, list[Path]] = defaultdict(list)
    for file in pictures:
        try:
            files_by_hash[cache.content_hash(file)].append(file)
        except OSError as error:
            if on_error == "fail":
                raise InputError(f"{file} can not be read: {error.strerror}.", fix="check its permissions") from None
            skipped[file] = f"it can not be read: {error.strerror}"
    cache.save()
    return files_by_hash


def _store(
    result: EmbedResult, chunk: dict[str, list[Path]], bundle: str, cache: EmbeddingCache, skipped: dict[Path, str]
) -> dict[str, FloatArray]:
    """Return the embeddings of a chunk by content hash and store them. Adds what could not be embedded to `skipped`."""
    embeddings: dict[str, FloatArray] = {}
    for row, (key, files) in enumerate(chunk.items()):
        reason = result.skipped.get(row)
        if reason is None:
            embeddings[key] = result.embeddings[row]
        else:
            skipped |= dict.fromkeys(files, reason)
    # What was changed between its hash and its embedding is not stored.
    cache.add_embeddings(bundle, {key: row for key, row in embeddings.items() if _has_hash(chunk[key][0], key)})
    return embeddings


def _has_hash(file: Path, key: str) -> bool:
    try:
        return sha256_of_file(file) == key
    except OSError:
        return False


def _source(file: Path) -> Source:
    return Source(str(file), lambda: Item(images=(file,)))


def _files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures, by their suffix, and the other files below a folder. Raises InputError without a picture."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.", fix="pass --in FOLDER with pictures")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(folder))]
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise InputError(
            f"{folder} has no picture{f' among its {len(files)} files' if files else ': it is empty'}.",
            fix="pass a folder with PNG, JPEG, WebP or other image files",
        )
    return pictures, [file for file in files if file.suffix.lower() not in PICTURE_SUFFIXES]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
