"""Rank the pictures of a folder by a query."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..embed_file import OnError, Source, embed_sources
from ..errors import InputError
from ..preprocess import Item
from ..runtime.embedder import Embedder
from ..stages import FloatArray
from .cache import EmbeddingCache

# What is embedded is stored after this many files, so that a search that was stopped goes on from there.
_CHUNK = 64

# Opens a progress bar of so many inputs; what it yields advances the bar.
Progress = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Hit:
    """A picture and its cosine to the query."""

    file: Path
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The best hits, best first. `embedded` pictures were new; `skipped` names the files left out and why."""

    query: Item
    folder: Path
    hits: list[Hit]
    pictures: int
    embedded: int
    skipped: dict[Path, str]


def search_folder(
    embedder: Embedder,
    folder: Path,
    query: Item,
    *,
    cache: EmbeddingCache,
    top: int,
    batch_size: int,
    on_error: OnError,
    progress: Progress,
) -> SearchResult:
    """Embed what the cache does not know, then rank all pictures below `folder`; hidden files are left out.

    With `on_error="skip"` files that are no pictures are counted and left out; with "fail" the first raises InputError, as does
    a folder that is missing or has no picture.
    """
    pictures, others = _files_in(folder)
    if others and on_error == "fail":
        raise InputError(f"{others[0]} is no picture.", fix="move it out of the folder, or --on-error skip")
    skipped = dict.fromkeys(others, "no picture")
    query_embedding = embedder.embed([query])[0]
    hashes = cache.content_hashes(pictures)
    bundle = embedder.bundle.sha256
    known = cache.embeddings(bundle, set(hashes.values()))
    new = {key: file for file, key in hashes.items() if key not in known}  # equal contents are embedded once
    embedded = _embed_new(embedder, new, cache, skipped, batch_size=batch_size, on_error=on_error, progress=progress)
    known |= embedded
    found = [file for file, key in hashes.items() if key in known]
    skipped |= {file: "it can not be read" for file in pictures if file not in hashes}
    if not found:
        raise InputError(
            f"{folder} has no picture that can be read.", fix="check the folder; pictures are PNG, JPEG, WebP, ..."
        )
    scores = np.stack([known[hashes[file]] for file in found]) @ query_embedding
    order = np.argsort(-scores, kind="stable")[:top]
    hits = [Hit(found[row], float(scores[row])) for row in order]
    return SearchResult(query, folder, hits, len(found), len(embedded), skipped)


def _embed_new(
    embedder: Embedder,
    new: Mapping[str, Path],
    cache: EmbeddingCache,
    skipped: dict[Path, str],
    *,
    batch_size: int,
    on_error: OnError,
    progress: Progress,
) -> dict[str, FloatArray]:
    """Embed and store; return embeddings by content hash. Adds to `skipped`."""
    embeddings: dict[str, FloatArray] = {}
    keys = list(new)
    if not keys:
        return embeddings
    with progress(len(keys), "pictures") as advance:
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            sources = [_source(new[key]) for key in chunk]
            result = embed_sources(embedder, sources, batch_size=batch_size, on_error=on_error, advance=advance)
            rows = zip(chunk, sources, result.embeddings, strict=True)
            good = {key: row for key, source, row in rows if source.id not in result.skipped}
            cache.add_embeddings(embedder.bundle.sha256, good)
            embeddings |= good
            skipped |= {Path(name): reason for name, reason in result.skipped.items()}
    return embeddings


def _source(file: Path) -> Source:
    return Source(str(file), lambda: Item(images=(file,)))


def _files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures, by their suffix, and the other files below a folder. Raises InputError without a picture."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.", fix="pass --in FOLDER with pictures")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(folder))]
    suffixes = _picture_suffixes()
    pictures = [file for file in files if file.suffix.lower() in suffixes]
    if not pictures:
        raise InputError(
            f"{folder} has no picture{f' among its {len(files)} files' if files else ': it is empty'}.",
            fix="pass a folder with PNG, JPEG, WebP or other image files",
        )
    return pictures, [file for file in files if file.suffix.lower() not in suffixes]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _picture_suffixes() -> Sequence[str]:
    """The suffixes that Pillow reads."""
    return [suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN]
