"""A search result as one self-contained HTML page."""

import base64
import html
import io
from pathlib import Path

from ..bundle import Bundle
from ..errors import InputError
from ..html_page import filled_page
from ..inputs import load_image
from ..printable import printable
from .results_json import file_uri
from .search import Hit, SearchResult

_THUMBNAIL_PIXELS = 320


def page_from_result(result: SearchResult, bundle: Bundle, query_image: Path | None) -> str:
    """Return the page: the query, and a card for every hit with its thumbnail, score and name, linked to the file.

    An image that can no longer be read shows the reason instead of a thumbnail.
    """
    manifest, query = bundle.manifest, result.query
    checkpoint = Path(manifest.checkpoint.name).name
    skipped = len(result.skipped)
    return filled_page(
        __package__,
        title=_html(_one_line(query.text) or "search by image"),
        query=_query_html(query.text, query_image, result.exif_transpose),
        folder=_html(result.folder.name or str(result.folder)),
        pictures=f"{result.pictures:,} image{'s' if result.pictures > 1 else ''}",
        skipped=f", {skipped:,} file{'s' if skipped > 1 else ''} skipped" if skipped else "",
        bundle=_html(f"{checkpoint}, {manifest.backend} {manifest.precision}, bundle {bundle.sha256[:12]}"),
        cards="\n".join(_card(rank, hit, result) for rank, hit in enumerate(result.hits, start=1)),
    )


def _query_html(text: str, image: Path | None, exif_transpose: bool) -> str:
    parts = []
    if image is not None:
        parts.append(_picture(image, f"query image: {image.name}", exif_transpose))
    if text:
        parts.append(f"<h1>{_html(_one_line(text))}</h1>")
    return "".join(parts)


def _card(rank: int, hit: Hit, result: SearchResult) -> str:
    """Return one card. Its bar shows the score from 0 to 1; a negative score has no bar."""
    name = result.shown_name(hit.file)
    width = 100 * min(max(hit.score, 0.0), 1.0)
    return (
        f'<li><a href="{html.escape(file_uri(hit.file))}">{_picture(hit.file, name, result.exif_transpose)}</a>'
        f"<p><b>{rank}</b><span>{_html(name)}</span><i>{hit.score:.3f}</i></p>"
        f'<div class="bar" aria-hidden="true"><div style="width:{width:.1f}%"></div></div></li>'
    )


def _html(text: str) -> str:
    return html.escape(printable(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _picture(file: Path, alt: str, exif_transpose: bool) -> str:
    try:
        return f'<img src="{_thumbnail(file, exif_transpose=exif_transpose)}" alt="{_html(alt)}">'
    except InputError as error:  # the folder may change during the search
        return f'<em class="gone">{_html(error.message)}</em>'


def _thumbnail(file: Path, *, exif_transpose: bool) -> str:
    """Return a data URL of the image as the model saw it, scaled down if it is large. Raises InputError."""
    image = load_image(file, exif_transpose=exif_transpose)
    is_small = max(image.size) <= _THUMBNAIL_PIXELS
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if is_small else "JPEG")
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
