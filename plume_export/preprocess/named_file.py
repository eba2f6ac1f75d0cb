"""Texts that are the name of a file: it may be the file that was meant."""

import os
from pathlib import PurePath

from .notice import Notice
from .suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES


def notices_of_text(text: str) -> list[Notice]:
    """Return a notice if a text is the path of a picture or video that exists. The file system is asked by suffix only."""
    name = text.strip()
    suffix = PurePath(name[-16:]).suffix.lower()
    detail = "image" if suffix in PICTURE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else ""
    if not detail or not os.path.isfile(name):
        return []
    return [Notice("text names a file", name, detail=detail)]
