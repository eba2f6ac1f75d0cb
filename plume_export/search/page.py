"""A search result as one HTML page that needs nothing beside it."""

import base64
import html
import io
import os
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

from PIL import Image, ImageOps

from ..bundle import Bundle
from ..preprocess import ImageSource, load_image
from .search import Hit, SearchResult

_THUMBNAIL_PIXELS = 320


def page_from_result(result: SearchResult, bundle: Bundle) -> str:
    """Return the page: the query, and a card with thumbnail, score and file name for every hit."""
    manifest = bundle.manifest
    query = result.query
    return Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(query.text or "search by picture"),
        query=_query_html(query.text, query.images[0] if query.images else None),
        folder=html.escape(result.folder.name or str(result.folder)),
        pictures=f"{result.pictures:,}",
        skipped=f", {len(result.skipped)} files skipped" if result.skipped else "",
        bundle=html.escape(f"{manifest.checkpoint}, {manifest.backend} {manifest.precision}, bundle {bundle.sha256[:12]}"),
        cards="\n".join(_card(rank, hit, result) for rank, hit in enumerate(result.hits, start=1)),
    )


def _query_html(text: str, image: ImageSource | None) -> str:
    parts = []
    if image is not None:
        parts.append(f'<img src="{_thumbnail(image)}" alt="query picture">')
    if text:
        parts.append(f"<h1>{html.escape(text)}</h1>")
    return "".join(parts)


def _card(rank: int, hit: Hit, result: SearchResult) -> str:
    """The bar shows where the score lies between the last hit shown and 1."""
    worst = result.hits[-1].score
    share = (hit.score - worst) / (1 - worst) if worst < 1 else 1.0
    name = str(hit.file.relative_to(result.folder))
    link = quote(str(hit.file.resolve()).replace(os.sep, "/"))
    return (
        f'<li><a href="file://{link}"><img src="{_thumbnail(hit.file)}" alt=""></a>'
        f'<p><b>{rank}</b><span title="{html.escape(name)}">{html.escape(name)}</span><i>{hit.score:.3f}</i></p>'
        f'<div class="bar"><div style="width:{100 * share:.0f}%"></div></div></li>'
    )


def _thumbnail(source: ImageSource) -> str:
    """A data address of the picture, scaled down; small pictures stay as they are."""
    image = load_image(source)
    if isinstance(source, Path | str):
        with Image.open(source) as original:
            image = load_image(ImageOps.exif_transpose(original))
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if max(image.size) < _THUMBNAIL_PIXELS else "JPEG", quality=85)
    kind = "png" if max(image.size) < _THUMBNAIL_PIXELS else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
