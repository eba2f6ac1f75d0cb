"""Options of several commands: how images and videos are read, and --no-verify."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

exif_transpose_option = click.option(
    "--exif-transpose",
    is_flag=True,
    help="Rotate images by their EXIF orientation.  [default: ignore it, as the original code does]",
)
_frames = click.option(
    "--video-frames",
    type=int,
    metavar="N",
    help="Sample N frames (an even number) from each video file; a shorter video is used whole.",
)
_fps = click.option(
    "--video-fps",
    type=float,
    metavar="F",
    help="Sample F frames per second from each video file, 4 to 768 in total.  [default: 2]",
)


def media_options(function: _Function) -> _Function:
    """Add --exif-transpose, --video-frames and --video-fps."""
    return exif_transpose_option(_frames(_fps(function)))


_OPTION = click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files; names and sizes are still checked.")


def verify_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --no-verify. The function receives it as `verify_hashes`."""

    @wraps(function)
    def with_verify_hashes(*arguments: Any, no_verify: bool, **options: Any) -> Any:
        return function(*arguments, verify_hashes=not no_verify, **options)

    return _OPTION(with_verify_hashes)
