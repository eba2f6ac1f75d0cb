"""A process that is measured, from outside."""

import selectors
import subprocess
import sys
import tempfile
import time
from typing import TypeVar

import msgspec

from ...errors import PlumeExportError
from .protocol import Failed, Reply, Request

_TAIL_LINES = 12
_CHUNK_BYTES = 1 << 16
_END_S = 10.0
Expected = TypeVar("Expected", bound=Reply)


class WorkerError(PlumeExportError):
    """A process that was measured ended, or took too long."""


class WorkerProcess:
    """Runs `plume_export.bench.contestants.worker` for what `name` says. A context manager; at its end the process is gone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "plume_export.bench.contestants.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Request, expected: type[Expected], *, timeout_s: float | None = None) -> Expected:
        """Return the reply. Raises what the worker raised, and WorkerError if it dies or takes longer than `timeout_s`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
        except BrokenPipeError:
            raise self._died() from None
        reply = msgspec.json.decode(self._read_line(timeout_s), type=Reply)
        if isinstance(reply, Failed):
            raise PlumeExportError(f"{self.name}: {reply.message}", fix=reply.fix)
        assert isinstance(reply, expected), reply
        return reply

    def close(self) -> None:
        """Let the process end, and kill it if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process.stdout.close()
        self._stderr.close()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.kill()  # it may be in the middle of something long
        self.close()

    def _read_line(self, timeout_s: float | None) -> bytes:
        assert self._process.stdout is not None
        until = None if timeout_s is None else time.monotonic() + timeout_s
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                left = None if until is None else max(0.0, until - time.monotonic())
                if not selector.select(left):
                    self.kill()
                    raise WorkerError(f"{self.name} had not answered after {timeout_s:.0f} s.", fix="leave it out")
                chunk = self._process.stdout.read(_CHUNK_BYTES)
                if not chunk:
                    raise self._died()
                line += chunk
        return line

    def _died(self) -> WorkerError:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        said = "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    nothing"
        return WorkerError(
            f"The process of {self.name} ended with code {code}. The last that it said:\n{said}",
            fix="a code of -9 means that memory ran out: end other programs, or measure fewer at a time"
            if code == -9
            else f"leave {self.name} out, or solve what it says",
        )
