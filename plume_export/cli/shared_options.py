"""Options of several commands: how inputs are embedded, how images and videos are read, and --no-verify."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

_RUN_OPTIONS = (
    click.option(
        "--mode", type=click.Choice(["gen", "disc"]), default="gen", show_default=True, help="disc: skip the latent steps."
    ),
    click.option("--steps", type=click.IntRange(min=0), help="Run fewer latent steps (0: none), for ablations."),
    click.option("--batch-size", type=click.IntRange(min=1), help="Inputs per batch.  [default: 8, or the bundle's maximum]"),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads per operator (intra-op threads)."),
    click.option(
        "--on-error",
        type=click.Choice(["fail", "skip"]),
        default="fail",
        show_default=True,
        help="What to do with an input that cannot be read.",
    ),
)
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


def run_options(function: _Function) -> _Function:
    """Add --mode, --steps, --batch-size, --threads and --on-error."""
    for option in reversed(_RUN_OPTIONS):
        function = option(function)
    return function


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
