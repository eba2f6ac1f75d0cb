"""A command in a process that was forked off this one, so that what it imports is there already; it may be killed."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_HANG_S = 900.0


@dataclass(frozen=True)
class Ended:
    """How a run ended: by SIGKILL, or with an exit code; after so long; what it wrote on stderr."""

    is_killed: bool
    code: int
    seconds: float
    stderr: str


def run_forked(
    arguments: Sequence[str], log: Path, *, kill_after: float | None = None, prepare: Callable[[], object] = lambda: None
) -> Ended:
    """Run plume-export with arguments, after `prepare`. After `kill_after` seconds, its process group gets SIGKILL."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(arguments, log, prepare)
    deadline = started + (_HANG_S if kill_after is None else kill_after)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended or time.monotonic() >= deadline:
            break
        time.sleep(0.0005)
    if not ended:
        _kill_group(child)
        _, status = os.waitpid(child, 0)
        assert kill_after is not None, f"no end after {_HANG_S:.0f} s: {' '.join(arguments)}"
    code = os.waitstatus_to_exitcode(status)
    stderr = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return Ended(code == -signal.SIGKILL, code, time.monotonic() - started, stderr)


def _kill_group(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not come to its own group yet
        os.kill(child, signal.SIGKILL)


def _run(arguments: Sequence[str], log: Path, prepare: Callable[[], object]) -> None:
    """Never returns: what this process has opened is not closed twice."""
    code = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, target in enumerate((nothing, nothing, descriptor)):
            os.dup2(target, number)
        prepare()
        from plume_export.cli import main

        main(args=list(arguments), prog_name="plume-export")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
