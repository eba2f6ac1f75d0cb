"""Names of files as text that can be shown."""

import os

import pytest

from plume_export.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two words & <b>.png", "two words & <b>.png"),
        ("a\nb\tc\r.png", r"a\nb\tc\r.png"),
        ("\x1b[31mred\x1b[0m\x07", r"\x1b[31mred\x1b[0m\x07"),
        ("a\x00b\x7fc\x9b", r"a\x00b\x7fc\x9b"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("one\u2028two\u200bthree", r"one\u2028two\u200bthree"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u5bb6\u65cf\u3000\U0001f468\u200d\U0001f469.png",) * 2,
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_cannot_be_shown_is_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert shown.encode()
