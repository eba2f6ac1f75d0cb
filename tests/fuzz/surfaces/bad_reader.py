"""A reader that fails in every way, to test what is found. It is none of those that are fuzzed."""

import os
from pathlib import Path

from hypothesis import strategies as st

from plume_export.errors import PlumeExportError

from ..surface import Surface

_CASE = "case"
_MEMORY_BYTES = 1 << 29


def _read(directory: Path) -> None:
    """Case content 0 is accepted."""
    content = (directory / _CASE).read_bytes()[0]
    if content == 1:
        raise PlumeExportError("refused")
    if content == 2:
        raise ValueError("no user's error")
    if content == 3:
        os.abort()
    if content == 4:
        bytearray(_MEMORY_BYTES)[:] = b"x" * _MEMORY_BYTES
    while content == 5:
        pass


SURFACE = Surface("bad-reader", 1, lambda _: None, lambda _: st.integers(0, 5).map(lambda n: {_CASE: bytes([n])}), _read)
