"""The options of how pictures and videos are read, which several commands take."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

exif_transpose_option = click.option(
    "--exif-transpose", is_flag=True, help="Turn pictures upright by their EXIF rotation, which is ignored as published."
)
_frames = click.option(
    "--video-frames", type=int, metavar="N", help="Sample N frames of a video file, an even number; all of a shorter one."
)
_fps = click.option(
    "--video-fps", type=float, metavar="F", help="Sample F frames a second of a video file, 4 to 768 in all.  [default: 2]"
)


def media_options(function: _Function) -> _Function:
    """Add --exif-transpose, --video-frames and --video-fps."""
    return exif_transpose_option(_frames(_fps(function)))
