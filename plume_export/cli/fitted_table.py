"""Tables as plain text that fit the terminal. No text is cut and no number is broken."""

import shutil
import sys
from io import StringIO
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

_NARROWEST, _WIDEST = 60, 110
# If the columns are too narrow for whole words, long names and headers are broken into parts of this many characters.
_SHORTEST_BREAK = 12


def terminal_width() -> int:
    """Return the maximum line length: the terminal's width, or 80 if stdout is not a terminal and COLUMNS is not set."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)


def text_from_table(table: "Table", width: int) -> str:
    """Return the table as lines of at most `width` characters. A table that is too wide becomes one paragraph per row."""
    cells = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    widths = [max(cell_len(line) for cell in column for line in (cell.splitlines() or [""])) for column in cells]
    words, parts = _whole_words(cells), _breakable_words(cells, [column.justify == "left" for column in table.columns])
    for least in (words, parts):
        for has_frame in (True, False):
            between = 3 * len(widths) + 1 if has_frame else 2 * (len(widths) - 1)
            fitted = _shrunk(widths, least, width - between)
            if fitted is not None:
                return _lines(table, fitted, width, has_frame)
    return _paragraphs(table)


def _whole_words(cells: list[list[str]]) -> list[int]:
    return [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in cells]


def _breakable_words(cells: list[list[str]], are_names: list[bool]) -> list[int]:
    """Return the smallest width of each column. Names and headers of numbers may be broken; numbers may not."""
    least = []
    for (header, *column), is_name in zip(cells, are_names, strict=True):
        (in_header,), (in_cells,) = _whole_words([[header]]), _whole_words([column])
        least.append(max(min(in_header, _SHORTEST_BREAK), min(in_cells, _SHORTEST_BREAK) if is_name else in_cells))
    return least


def _shrunk(widths: list[int], least: list[int], available: int) -> list[int] | None:
    """Shrink the widest columns first until the sum fits. Return None if the sum cannot be reached."""
    fitted = list(widths)
    while sum(fitted) > available:
        slack = [width - floor for width, floor in zip(fitted, least, strict=True)]
        if max(slack) <= 0:
            return None
        fitted[slack.index(max(slack))] -= 1
    return fitted


def _lines(table: "Table", widths: list[int], width: int, has_frame: bool) -> str:
    for column, fitted in zip(table.columns, widths, strict=True):
        column.width, column.overflow, column.no_wrap = fitted, "fold", False
    if not has_frame:
        table.box, table.show_edge, table.pad_edge, table.padding = SIMPLE_HEAD, False, False, (0, 1, 0, 0)
    console = Console(file=StringIO(), width=width, highlight=False, markup=False, emoji=False, color_system=None)
    options = console.options.update(width=width)
    options.encoding = sys.stdout.encoding or "utf-8"  # an encoding without box characters gets ASCII frames
    lines = console.render_lines(table, options, pad=False)
    return "".join("".join(segment.text for segment in line).rstrip() + "\n" for line in lines)


def _paragraphs(table: "Table") -> str:
    headers = [str(column.header) for column in table.columns]
    rows = zip(*(map(str, column.cells) for column in table.columns), strict=True)
    lines = [str(table.title)] if table.title else []
    for first, *others in rows:
        lines.append(f"{headers[0]} {first}".strip())
        lines += [f"  {header}: {cell}" for header, cell in zip(headers[1:], others, strict=True) if cell.strip()]
    lines += [str(table.caption)] if table.caption else []
    return "\n".join(lines) + "\n"
