"""Tables at the width of a terminal: whole words and numbers, and nothing lost."""

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.table import Table

from plume_export.cli import main
from plume_export.cli.fitted_table import text_from_table

COLUMNS = ("input", "who", "p50 ms", "p95 ms", "plume-tiny-fp16-cpu is faster", "95 % interval", "cosine")
ROWS = [
    ("a text", "plume-tiny-fp16-cpu", "1,234.5", "1,234.5", "1.23x", "1.22 to 1.24", "0.999999"),
    ("a picture of 448x448", "pytorch-fp32", "12.3", "12.4", "", "", "1.000000"),
    ("象" * 30, "a/path/without/any/blank/in/it/at/all/to/break/at.png", "0.1", "0.2", "", "", ""),
]


def table_of(columns: int = len(COLUMNS)) -> Table:
    table = Table(title="a title", caption="a caption that is longer than the terminal is wide, and is here to its last word")
    for index, column in enumerate(COLUMNS[:columns]):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=index == 0)
    for row in ROWS:
        table.add_row(*row[:columns])
    return table


@pytest.mark.parametrize("columns", range(1, len(COLUMNS) + 1))
@pytest.mark.parametrize("width", [60, 80, 110])
def test_nothing_is_cut(width: int, columns: int) -> None:
    text = text_from_table(table_of(columns), width)
    assert "…" not in text
    is_in_paragraphs = "  who: " in text
    for line in text.splitlines():
        assert line == line.rstrip()
        assert is_in_paragraphs or cell_len(line) <= width
    for row in ROWS:
        for number in row[2:columns]:
            assert all(part in text for part in number.split())
    assert "".join(character for character in text if character == "象") == "象" * 30


def test_a_table_too_wide_has_a_paragraph_for_every_row() -> None:
    text = text_from_table(table_of(), 60)
    assert "input a text\n  who: plume-tiny-fp16-cpu\n  p50 ms: 1,234.5\n" in text


def test_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, widest in ((None, 80), ("70", 70), ("100", 100), ("300", 110)):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns is not None:
            monkeypatch.setenv("COLUMNS", columns)
        lines = CliRunner().invoke(main, ["targets"]).stdout.splitlines()
        assert max(map(len, lines)) <= widest
        assert any("jetson-agx-orin-64gb" in line for line in lines)
