"""stdin, stdout and stderr as the shell left them: closed, full, or of another encoding."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import PlumeExportError


def prepare_streams() -> None:
    """Make what a shell may hand over safe to print to. Raises PlumeExportError where stdout is closed: results go there.

    A descriptor that is closed would be the next file's: what a library prints would be written into it.
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
        raise PlumeExportError("stdout is closed; results are printed there.", fix="> FILE, or > /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files print as the bytes that they are; other encodings may lack a letter.
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


@contextmanager
def printing() -> Iterator[None]:
    """Raise PlumeExportError where stdout cannot be written; exit where nobody reads it any more."""
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
    """Let what can no longer be written go nowhere, so that Python does not try again at its exit."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
