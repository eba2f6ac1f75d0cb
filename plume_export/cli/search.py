"""The command `search`."""

import os
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..bundle import check_writable
from ..inputs import Item, NoticeTally
from ..printable import printable
from ..runtime.embedder import Embedder
from ..search.cache import EmbeddingCache, default_cache_file
from ..search.results_json import report_from_result, skipped_line
from ..search.search import SearchResult, search_folder
from ..whole_file import replacing
from .console import html_file, print_hits, print_notices, progress
from .messages import note, warn
from .shared_options import exif_transpose_option, verify_option
from .switches import Answer, command

_ON_ERROR_HELP = "What to do with files that are not images or are corrupt."


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("text", default="")
@click.option("--in", "folder", type=click.Path(path_type=Path), required=True, help="Folder of images, with its subfolders.")
@click.option("--image", type=click.Path(path_type=Path), help="Image as the query, alone or with TEXT.")
@click.option("--top", type=click.IntRange(min=1), default=12, show_default=True, help="Number of results to show.")
@click.option("--html", "page", type=click.Path(path_type=Path), callback=html_file, help="Write an HTML page with thumbnails.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="File of the embedding cache.  [default: in the user's cache directory]"
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Inputs per batch.  [default: 8, or the bundle's maximum]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads per operator (intra-op threads).")
@click.option("--on-error", type=click.Choice(["fail", "skip"]), default="skip", show_default=True, help=_ON_ERROR_HELP)
@exif_transpose_option
@verify_option
def search(
    bundle: Path,
    text: str,
    folder: Path,
    image: Path | None,
    page: Path | None,
    cache: Path | None,
    threads: int | None,
    exif_transpose: bool,
    verify_hashes: bool,
    **options: Any,
) -> Answer:
    """Rank a folder's images by TEXT, an image or both. Each image is embedded once and cached."""
    if not text and image is None and not os.path.exists(bundle):
        words = ["plume-export", "search", "BUNDLE", "--in", str(folder), str(bundle)]
        raise click.UsageError(f"BUNDLE, the directory that `build` wrote, is missing: {shlex.join(words)}")
    if not text.strip() and image is None:
        raise click.UsageError("nothing to search for: give TEXT, --image or both")
    if page is not None:
        check_writable(page)
    query = Item(text=text, images=() if image is None else (image,))
    tally = NoticeTally()
    with (
        Embedder(bundle, threads=threads, verify_hashes=verify_hashes, exif_transpose=exif_transpose) as embedder,
        EmbeddingCache(cache or default_cache_file(), warn) as known,
    ):
        result = search_folder(embedder, folder, query, cache=known, progress=progress, notify=tally.add, **options)
        if page is not None:
            from ..search.results_page import page_from_result

            with replacing(page) as file:
                file.write(page_from_result(result, embedder.bundle, image).encode("utf-8", "replace"))
    if result.skipped:
        (warn if result.broken else note)(skipped_line(result))
    print_notices(tally)
    return Answer(report_from_result(result, page), partial(_print, result, page))


def _print(result: SearchResult, page: Path | None) -> None:
    print_hits(result)
    if page is not None:
        click.echo(printable(str(page)))


COMMANDS = (search,)
