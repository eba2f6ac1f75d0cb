"""What a command says on stderr beside its result: progress, notes, warnings."""

import sys
import time

import click
import msgspec

from ..progress import is_detail
from .switches import switches


def report_step(step: str) -> None:
    """Say what is being done now, after how many minutes and seconds; details with --verbose only."""
    if switches().is_verbose or not is_detail(step):
        note(f"{_elapsed()} {step}")


def note(text: str) -> None:
    """Say something that does not change the result's meaning."""
    if switches().has_notes:
        click.echo(text, err=True)


def warn(text: str) -> None:
    """Say something that changes the result's meaning; under --json as an object of one line."""
    if switches().as_json:
        click.echo(msgspec.json.encode({"warning": {"message": text}}), err=True)
    else:
        click.echo(f"warning: {text}", err=True)


def has_bars() -> bool:
    """Say whether bars may be shown: on a terminal, where notes are."""
    return switches().has_notes and sys.stderr is not None and sys.stderr.isatty()


def _elapsed() -> str:
    seconds = round(time.monotonic() - switches().started_s)
    return f"{seconds // 60}:{seconds % 60:02}"
