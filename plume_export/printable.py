"""Names of files as text that a terminal, a table and a page can show."""

import unicodedata

# Other, of every kind but those that fonts need for emoji and for Arabic and Indic scripts.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"


def printable(name: str) -> str:
    """Return the name with control characters, line ends, overrides of direction and bytes that are no UTF-8 escaped."""
    return "".join(_escaped(character) for character in name)


def printable_line(text: str) -> str:
    """Return the text of an error, whatever names are in it, in one line."""
    return printable(text.replace("\n  fix:", " Fix:"))


def _escaped(character: str) -> str:
    code = ord(character)
    if unicodedata.category(character) not in _ESCAPED or character in _JOINERS:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python decodes file names
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
