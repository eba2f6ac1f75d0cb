"""The end of a command that failed: one message on stderr, or one JSON object with --json, and the exit code."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from ..errors import OptionError, PlumeExportError
from .messages import echo_on_stderr
from .streams import forget_output
from .switches import document_from_value

_PACKAGE = Path(__file__).resolve().parents[1]


class ErrorText(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as JSON. `input` and `index` (from 0) name the input that caused it, if the error is about one input."""

    type: str
    message: str
    fix: str | None
    input: str | None = None
    index: int | None = None


class ErrorDocument(msgspec.Struct, frozen=True):
    """The JSON object on stderr under --json."""

    error: ErrorText


def exit_with(error: BaseException, arguments: Sequence[str]) -> NoReturn:
    """Print the error and exit with 1 (failure), 2 (usage error) or 130 (Ctrl-C).

    With `--debug` among the arguments, raise the error again.
    """
    given = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--debug" in given and not isinstance(error, click.ClickException | click.Abort):
        raise error
    if isinstance(error, OSError):
        forget_output()
    if isinstance(error, click.Abort):
        if "--json" not in given:
            echo_on_stderr("interrupted")
        sys.exit(128 + signal.SIGINT)
    if "--json" in given:
        echo_on_stderr(document_from_value(ErrorDocument(error_text(error))))
    elif isinstance(error, click.ClickException):
        with suppress(OSError):
            error.show()
    else:
        text = error_text(error)
        echo_on_stderr(f"error: {text.message}" + (f"\n  fix: {text.fix}" if text.fix else ""))
    sys.exit(error.exit_code if isinstance(error, click.ClickException) else 1)


def error_text(error: BaseException) -> ErrorText:
    """Return the message of an error. An error that is not meant for users is marked as internal."""
    if isinstance(error, PlumeExportError):
        about: dict[str, Any] = {name: getattr(error, name, None) for name in ("input", "index")}
        return ErrorText(type(error).__name__, error.message, error.command_line_fix, **about)
    if isinstance(error, click.UsageError) and isinstance(error.__cause__, OptionError):
        return ErrorText("UsageError", error.__cause__.message, error.__cause__.command_line_fix)
    if isinstance(error, click.UsageError):
        path = "plume-export" if error.ctx is None else error.ctx.command_path
        return ErrorText("UsageError", error.format_message(), f"{path} --help")
    if isinstance(error, click.ClickException):
        return ErrorText(type(error).__name__, error.format_message(), None)
    if isinstance(error, MemoryError):
        return ErrorText("MemoryError", f"Not enough memory. {error}".rstrip(), "use a smaller --batch-size or smaller inputs")
    if isinstance(error, OSError):
        of = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return ErrorText("OSError", f"{of}{error.strerror or error}", None)
    where = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)]
    place = f" ({Path(where[-1].filename).relative_to(_PACKAGE.parent)} line {where[-1].lineno})" if where else ""
    message = f"internal error: {type(error).__name__}: {error}{place}"
    return ErrorText("InternalError", message, "please report it; --debug shows the traceback")
