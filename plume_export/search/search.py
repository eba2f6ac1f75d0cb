"""Rank the images of a folder by a query."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from .. import __version__
from ..bundle import sha256_of_file
from ..embed_file import EmbedResult, OnError, embed_sources
from ..errors import InputError
from ..inputs import Item, Notice, Notify, Source
from ..inputs.media_files import find_pictures, is_named_as_picture
from ..printable import printable
from ..progress import OpenProgress
from ..runtime.embedder import Embedder
from ..stages import FloatArray
from .cache import EmbeddingCache
from .unreadable_image import is_unreadable, reader_of_pictures, with_name, without_name

# Embeddings are stored after this many files, so that an interrupted search continues from there.
_CHUNK = 64


@dataclass(frozen=True)
class Hit:
    """An image and its cosine similarity to the query."""

    file: Path
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The best hits, best first. `pictures` is the number of images that were ranked. `skipped` maps skipped files to reasons.

    `embedded` is the number of images that were not in the cache; files of equal content count once. `exif_transpose` is True
    if images were rotated by their EXIF orientation.
    """

    query: Item
    folder: Path
    hits: list[Hit]
    pictures: int
    embedded: int
    skipped: dict[Path, str]
    exif_transpose: bool = False

    @property
    def broken(self) -> list[Path]:
        """The skipped files that have an image suffix."""
        return [file for file in self.skipped if is_named_as_picture(file)]

    def shown_name(self, file: Path) -> str:
        """Return the file's path below the folder as printable text, even if it is not UTF-8."""
        return printable(str(file.relative_to(self.folder)))


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
    """Embed the images that are not cached, then rank all images below `folder` (inputs/media_files.py defines which).

    With `on_error="skip"`, files that are not images or cannot be read are skipped. The cache records an unreadable image, so
    that the same package versions do not try it again. With "fail", the first such file raises InputError. A folder that is
    missing or has no image always raises InputError.
    """
    found = find_pictures(folder)
    if found.skipped and on_error == "fail":
        file, reason = next(iter(found.skipped.items()))
        raise InputError(f"{file} is {reason}.", fix="move it out of the folder, or use --on-error skip")
    skipped = dict(found.skipped)
    prepared_query = embedder.prepare(query)
    notify(prepared_query.notices)
    query_embedding = embedder.embed_prepared([prepared_query])[0]
    files_by_hash = _files_by_hash(found.files, cache, skipped, on_error)
    # Another version may preprocess images differently, and a rotated image has another embedding.
    is_upright = embedder.media_options.exif_transpose
    bundle = f"{__version__} {embedder.bundle.cache_key}{' exif-transpose' if is_upright else ''}"
    known = cache.embeddings(bundle, files_by_hash, embedder.dimension)
    for key, remembered in cache.notices(bundle, known).items():
        notify(replace(notice, name=str(files_by_hash[key][0])) for notice in remembered)
    new = {key: files for key, files in files_by_hash.items() if key not in known}
    if on_error == "skip":
        new = _without_failures(new, cache, skipped)
    if new:
        with progress(len(new), "images") as advance:
            embed = partial(embed_sources, embedder, batch_size=batch_size, on_error=on_error, advance=advance)
            embedded = _embed_new(new, embed, bundle, cache, skipped, notify)
    else:
        embedded = {}
    known |= embedded
    ranked = {file: key for key, files in files_by_hash.items() if key in known for file in files}
    if not ranked:
        reason = next(skipped[file] for file in found.files)
        raise InputError(
            f"{folder} has no image that can be embedded: {reason}",
            fix="pass a folder with valid image files, and a bundle that embeds images",
        )
    skipped = dict(sorted(skipped.items()))
    hits = _hits(ranked, known, query_embedding, top)
    return SearchResult(query, folder, hits, len(ranked), len(embedded), skipped, is_upright)


def _embed_new(
    new: dict[str, list[Path]],
    embed: Callable[..., EmbedResult],
    bundle: str,
    cache: EmbeddingCache,
    skipped: dict[Path, str],
    notify: Notify,
) -> dict[str, FloatArray]:
    """Return the embeddings of contents by hash. Every chunk is stored before the next is embedded."""
    embeddings: dict[str, FloatArray] = {}
    contents = list(new.items())
    for start in range(0, len(contents), _CHUNK):
        chunk = dict(contents[start : start + _CHUNK])
        notices: list[Notice] = []
        result = embed([_source(files[0]) for files in chunk.values()], notify=notices.extend)
        notify(notices)
        cache.add_notices(bundle, _notices_by_hash(notices, chunk))
        embeddings |= _store(result, chunk, bundle, cache, skipped)
    return embeddings


def _hits(ranked: dict[Path, str], known: dict[str, FloatArray], query: FloatArray, top: int) -> list[Hit]:
    """Return the best hits first. Equal scores stay in the order of the files."""
    scores = np.stack([known[key] for key in ranked.values()]) @ query
    files = list(ranked)
    return [Hit(files[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")[:top]]


def _files_by_hash(
    pictures: list[Path], cache: EmbeddingCache, skipped: dict[Path, str], on_error: OnError
) -> dict[str, list[Path]]:
    """Group files of equal content, which is embedded once. Add files that cannot be read to `skipped`."""
    files_by_hash: dict[str, list[Path]] = defaultdict(list)
    for file in pictures:
        try:
            files_by_hash[cache.content_hash(file)].append(file)
        except OSError as error:
            if on_error == "fail":
                raise InputError(f"{file} cannot be read: {error.strerror}.", fix="check its permissions") from None
            skipped[file] = f"a file that cannot be read: {error.strerror}"
    cache.save()
    return files_by_hash


def _without_failures(new: dict[str, list[Path]], cache: EmbeddingCache, skipped: dict[Path, str]) -> dict[str, list[Path]]:
    """Remove contents that could not be read before, and add their files to `skipped`."""
    failures = cache.failures(reader_of_pictures(), new)
    for key, reason in failures.items():
        skipped |= {file: with_name(reason, file) for file in new[key]}
    return {key: files for key, files in new.items() if key not in failures}


def _store(
    result: EmbedResult, chunk: dict[str, list[Path]], bundle: str, cache: EmbeddingCache, skipped: dict[Path, str]
) -> dict[str, FloatArray]:
    """Return a chunk's embeddings by content hash. Cache them, and the errors of images that failed; add these to `skipped`."""
    embeddings: dict[str, FloatArray] = {}
    failures: dict[str, str] = {}
    for row, (key, files) in enumerate(chunk.items()):
        if row not in result.skipped:
            embeddings[key] = result.embeddings[row]
            continue
        reason = without_name(result.skipped[row], files[0])
        skipped |= {file: with_name(reason, file) for file in files}
        if is_unreadable(files[0]):
            failures[key] = reason
    # A file that changed between its hash and its embedding is not stored.
    cache.add_embeddings(bundle, {key: row for key, row in embeddings.items() if _has_hash(chunk[key][0], key)})
    cache.add_failures(reader_of_pictures(), {key: row for key, row in failures.items() if _has_hash(chunk[key][0], key)})
    return embeddings


def _notices_by_hash(notices: list[Notice], chunk: dict[str, list[Path]]) -> dict[str, list[Notice]]:
    """Return the notices by content hash, without file names. They are given again whenever a cached embedding is used."""
    hashes = {str(files[0]): key for key, files in chunk.items()}
    found: dict[str, list[Notice]] = defaultdict(list)
    for notice in notices:
        if notice.name in hashes:
            found[hashes[notice.name]].append(replace(notice, name=""))
    return found


def _has_hash(file: Path, key: str) -> bool:
    try:
        return sha256_of_file(file) == key
    except OSError:
        return False


def _source(file: Path) -> Source:
    return Source(str(file), lambda: Item(images=(file,)))
