"""What a command says on stderr beside its result: progress, notes, warnings."""

import sys
import time
from contextlib import suppress

import click

from ..progress import is_detail
from .switches import document_from_value, switches


def report_step(step: str) -> None:
    """Say what is being done now, after how many minutes and seconds; details with --verbose only."""
    if switches().is_verbose or not is_detail(step):
        note(f"{_elapsed()} {step}")


def note(text: str) -> None:
    """Say something that does not change the result's meaning."""
    if switches().has_notes:
        echo_on_stderr(text)


def warn(text: str) -> None:
    """Say something that changes the result's meaning; under --json as an object of one line."""
    if switches().as_json:
        echo_on_stderr(document_from_value({"warning": {"message": text}}))
    else:
        echo_on_stderr(f"warning: {text}")


def echo_on_stderr(text: str | bytes) -> None:
    """Print where it can be printed: a stderr that is full or gone does not end the work."""
    with suppress(OSError):
        click.echo(text, err=True)


def has_bars() -> bool:
    """Say whether bars may be shown: on a terminal, where notes are."""
    return switches().has_notes and sys.stderr is not None and sys.stderr.isatty()


def _elapsed() -> str:
    seconds = round(time.monotonic() - switches().started_s)
    return f"{seconds // 60}:{seconds % 60:02}"
