"""File names as printable text for terminals, tables and pages."""

import unicodedata

# Unicode categories to escape: control, format, surrogate and line separators. The joiners stay, because emoji and Arabic and
# Indic scripts need them.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"


def printable(name: str) -> str:
    """Return the name with control characters, line ends, direction overrides and bytes that are not UTF-8 escaped."""
    return "".join(_escaped(character) for character in name)


def printable_line(text: str) -> str:
    """Return the text of an error on one line, with the names in it escaped."""
    return printable(text.replace("\n  fix:", " Fix:"))


def _escaped(character: str) -> str:
    code = ord(character)
    if unicodedata.category(character) not in _ESCAPED or character in _JOINERS:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python decodes file names
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
