"""Messages of a command on stderr: progress, notes, warnings."""

import sys
import time
from contextlib import suppress

import click

from ..progress import is_detail
from .switches import document_from_value, switches


def report_step(step: str) -> None:
    """Print the current step with the time since the start, in minutes and seconds. Details are shown only with --verbose."""
    if switches().is_verbose or not is_detail(step):
        note(f"{_elapsed()} {step}")


def note(text: str) -> None:
    """Print a note: a fact that does not change the meaning of the result."""
    if switches().has_notes:
        echo_on_stderr(text)


def warn(text: str) -> None:
    """Print a warning: a fact that changes the meaning of the result. With --json it is an object on one line."""
    if switches().as_json:
        echo_on_stderr(document_from_value({"warning": {"message": text}}))
    else:
        echo_on_stderr(f"warning: {text}")


def echo_on_stderr(text: str | bytes) -> None:
    """Print to stderr. A stderr that is full or closed does not end the run."""
    with suppress(OSError):
        click.echo(text, err=True)


def has_bars() -> bool:
    """Return True if progress bars may be shown: stderr is a terminal and notes are on."""
    return switches().has_notes and sys.stderr is not None and sys.stderr.isatty()


def _elapsed() -> str:
    seconds = round(time.monotonic() - switches().started_s)
    return f"{seconds // 60}:{seconds % 60:02}"
