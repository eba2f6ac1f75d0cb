"""Prepare stdin, stdout and stderr, which a shell may hand over closed, full, or with another encoding."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import PlumeExportError


def prepare_streams() -> None:
    """Make the standard streams safe to print to. Raises PlumeExportError if stdout is closed, because results go there.

    Closed descriptors are opened on /dev/null. Otherwise the next file opened would get such a number, and libraries that print
    would write into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise PlumeExportError("stdout is closed, but results are printed there.", fix="redirect it: > FILE, or > /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In UTF-8, file names are printed as their original bytes. Other encodings lack characters, which are then escaped.
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


@contextmanager
def printing() -> Iterator[None]:
    """Raise PlumeExportError if stdout cannot be written; exit if its reader is gone."""
    try:
        yield
    except BrokenPipeError:
        forget_output()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.filename is not None:
            raise
        forget_output()
        raise PlumeExportError(f"stdout cannot be written: {error.strerror}.") from error


def forget_output() -> None:
    """Discard output that can no longer be written, so that Python does not try again at exit."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
