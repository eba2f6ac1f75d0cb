"""Self-contained HTML pages."""

from importlib.resources import files
from string import Template


def filled_page(package: str, **values: str) -> str:
    """Return the page.html of a package with its `$names` filled in. `$style` is the style shared by all pages.

    Values are HTML; the caller must escape them.
    """
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8").strip()
    return Template(files(package).joinpath("page.html").read_text(encoding="utf-8")).substitute(style=style, **values)
