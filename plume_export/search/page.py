"""A search result as one HTML page that needs nothing beside it."""

import base64
import html
import io
from pathlib import Path

from PIL import Image, ImageOps

from ..bundle import Bundle
from ..errors import InputError
from ..page import filled_page
from ..preprocess import load_image
from .search import Hit, SearchResult

_THUMBNAIL_PIXELS = 320


def page_from_result(result: SearchResult, bundle: Bundle, query_image: Path | None) -> str:
    """Return the page: the query, and a card with thumbnail, score and file name for every hit.

    Nothing in it names a path outside the folder. Raises InputError for a picture that vanished meanwhile.
    """
    manifest, query = bundle.manifest, result.query
    checkpoint = Path(manifest.checkpoint.name).name
    return filled_page(
        __package__,
        title=html.escape(query.text or "search by picture"),
        query=_query_html(query.text, query_image),
        folder=html.escape(result.folder.name or str(result.folder)),
        pictures=f"{result.pictures:,}",
        skipped=f", {len(result.skipped)} files skipped" if result.skipped else "",
        bundle=html.escape(f"{checkpoint}, {manifest.backend} {manifest.precision}, bundle {bundle.sha256[:12]}"),
        cards="\n".join(_card(rank, hit, result) for rank, hit in enumerate(result.hits, start=1)),
    )


def _query_html(text: str, image: Path | None) -> str:
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
    name = html.escape(result.shown_name(hit))
    return (
        f'<li><img src="{_thumbnail(hit.file)}" alt="">'
        f'<p><b>{rank}</b><span title="{name}">{name}</span><i>{hit.score:.3f}</i></p>'
        f'<div class="bar"><div style="width:{100 * share:.0f}%"></div></div></li>'
    )


def _thumbnail(file: Path) -> str:
    """Return a data address of the picture, upright by its EXIF orientation, scaled down if it is large."""
    try:
        with Image.open(file) as original:
            image = load_image(ImageOps.exif_transpose(original))
    except OSError as error:
        raise InputError(f"The picture {file} can not be shown: {error}.", fix="search again") from None
    is_small = max(image.size) <= _THUMBNAIL_PIXELS
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if is_small else "JPEG")
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
