"""An unfinished run: its rows and a journal of its windows, in two hidden files beside the output.

A window's rows are written first, then its journal line. Even if the process is killed, the journal therefore lists only
windows whose rows are complete. Data after the last listed window is cut off when the run is resumed.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from ..errors import PlumeExportError
from ..inputs.json_lines import Source
from ..locked_file import open_hidden, open_locked
from ..runtime.embedder_options import Mode
from .embed_sources import EmbedResult, OnError, Skipped
from .embedding_file import Block

_FIX = "use the settings of the interrupted run, or --restart to discard it and start again"
_CHANGED_FIX = (
    "pass the lines and files of the interrupted run. Files that were copied, moved or touched since "
    "then count as changed; use --restart to discard the run and start again"
)

# Errors that decoding a line raises.
_DAMAGE = (ValueError, RecursionError, msgspec.ValidationError)


class RunSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings, besides the inputs, that determine the rows. `bundle` is the bundle's hash, marked if not verified."""

    version: str
    bundle: str
    mode: Mode
    steps: int
    batch_size: int
    allow_control_tokens: bool
    # These have defaults because the journal of an earlier version lacks them.
    exif_transpose: bool = False
    video_frames: int | None = None
    video_fps: float | None = None


class _Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the journal. `sha256` covers all inputs up to the window's end. Only the last window may not be whole."""

    ids: list[str]
    skipped: list[Skipped]
    sha256: str
    is_whole: bool


@dataclass(frozen=True)
class StoppedRun:
    """An interrupted run: the number of its inputs, the hash of its bundle, and when it was last written.

    `bundle` is None if the journal is corrupt.
    """

    inputs: int | None
    bundle: str | None
    written_at: datetime

    def refusal(self, output: Path) -> PlumeExportError:
        """Return the error for a run that neither resumes nor discards this interrupted run."""
        when = f"{self.written_at:%Y-%m-%d %H:%M}"
        if self.inputs is None or self.bundle is None:
            return PlumeExportError(
                f"Found an interrupted run for {output}, last written on {when}. Its journal is corrupt or from "
                "another version.",
                fix="use --restart to discard it and start again",
            )
        return PlumeExportError(
            f"Found an interrupted run for {output}: {self.inputs} inputs are finished with bundle "
            f"{self.bundle[:12]}, last written on {when}.",
            fix="use --resume to continue it, or --restart to discard it and start again",
        )


def stopped_run(output: Path) -> StoppedRun | None:
    """Return the interrupted run of `output`; None if there is no such run or it has finished no input.

    Raises PlumeExportError if another process is writing the run, or if something else has the names of its files.
    """
    rows, journal = _files(output)
    try:
        with os.fdopen(open_locked(rows, os.O_RDONLY, output, is_shared=True), "rb"), _opened(journal, os.O_RDONLY) as file:
            return _stopped_run(file)
    except OSError:
        return None


def _stopped_run(journal: IO[bytes]) -> StoppedRun | None:
    written_at = datetime.fromtimestamp(os.fstat(journal.fileno()).st_mtime).astimezone()
    head = journal.readline()
    if not head.endswith(b"\n"):
        return None
    try:
        settings = _decoded(head, RunSettings)
        windows = [_decoded(line, _Window) for line in journal if line.endswith(b"\n")]
    except _DAMAGE:
        return StoppedRun(None, None, written_at)
    inputs = sum(len(window.ids) for window in windows)
    return StoppedRun(inputs, settings.bundle, written_at) if inputs else None


class PartialRun:
    """The rows finished so far; a context manager.

    On exit the files are left for a later run; they are deleted if no row was finished. `is_resumed` continues an interrupted
    run; `is_restarted` discards it. Raises PlumeExportError if an interrupted run exists and neither flag is set, if its
    settings differ, if another process is writing the files, or if they cannot be written.
    """

    def __init__(
        self, output: Path, settings: RunSettings, dimension: int, *, is_resumed: bool, is_restarted: bool = False
    ) -> None:
        self.inputs = 0
        self._is_removed = False
        self.skipped: list[Skipped] = []
        self._settings, self._dimension = settings, dimension
        self._digest = sha256()
        self._rows_file, self._journal_file = _files(output)
        with self._errors(), ExitStack() as opened:
            rows = open_locked(self._rows_file, os.O_RDWR | os.O_CREAT, output)
            self._rows = opened.enter_context(os.fdopen(rows, "r+b"))
            self._journal = opened.enter_context(_opened(self._journal_file, os.O_RDWR | os.O_CREAT))
            if not (is_resumed or is_restarted) and (stopped := _stopped_run(self._journal)) is not None:
                raise stopped.refusal(output)
            self._journal.seek(0)
            end = self._read_journal() if is_resumed else 0
            try:
                self._cut(end)
            except OSError:
                if self.inputs == 0:
                    self.remove()
                raise
            self._opened = opened.pop_all()

    def remaining(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Return the sources that are not finished. Raises PlumeExportError if a finished source has changed."""
        unread = iter(sources)
        first = 0
        for window in self._windows():
            last = first + len(window.ids)
            done = list(islice(unread, len(window.ids)))
            self._update_digest(done)
            if self._digest.hexdigest() != window.sha256 or [source.id for source in done] != window.ids:
                raise self._refusal(f"the inputs {first + 1} to {last} differ from those that were embedded", _CHANGED_FIX)
            first = last
        return unread

    def check_skipped(self, on_error: OnError) -> None:
        """Raise PlumeExportError if the run skipped inputs and `on_error` no longer allows that."""
        if on_error == "fail" and self.skipped:
            found = f"it skipped {len(self.skipped)} inputs, the first one {self.skipped[0].id!r}"
            raise self._refusal(found, fix="pass --on-error skip, as before")

    def append(self, window: EmbedResult) -> None:
        """Write a window's rows to disk, then its line in the journal."""
        self._update_digest(window.sources)
        with self._errors():
            self._rows.write(np.ascontiguousarray(window.embeddings).data)
            _flush(self._rows)
            self._write_line(_Window(window.ids, window.skipped_inputs, self._digest.hexdigest(), window.is_whole))
        self.inputs += len(window.sources)
        self.skipped += window.skipped_inputs

    def blocks(self) -> Iterator[Block]:
        """Yield all rows with their ids, window by window."""
        self._rows.seek(0)
        for window in self._windows():
            size = len(window.ids) * self._row_bytes
            yield Block(window.ids, np.frombuffer(self._rows.read(size), np.float32).reshape(-1, self._dimension))

    def remove(self) -> None:
        """Delete both files, once. After that, another run may create its own."""
        if not self._is_removed:
            self._journal_file.unlink(missing_ok=True)
            self._rows_file.unlink(missing_ok=True)
            self._is_removed = True

    def __enter__(self) -> "PartialRun":
        return self

    def __exit__(self, *_: object) -> None:
        if self.inputs == 0 and not self._has_window():  # a signal may arrive between writing and counting
            self.remove()
        with suppress(OSError):  # a failed write was already reported as an error, and is tried again here
            self._opened.close()

    def _has_window(self) -> bool:
        try:
            self._journal.seek(0)
            return not self._is_removed and _stopped_run(self._journal) is not None
        except OSError:
            return False

    @property
    def _row_bytes(self) -> int:
        return self._dimension * np.dtype(np.float32).itemsize

    def _read_journal(self) -> int:
        """Count the finished inputs; return the position after the journal's last valid line, 0 if there is none."""
        head = self._journal.readline()
        if not head.endswith(b"\n"):
            return 0
        self._check_settings(self._decoded(head, RunSettings))
        rows_bytes, end = self._rows_file.stat().st_size, len(head)
        for line, window in self._lines():
            inputs = self.inputs + len(window.ids)
            # A window that is not whole is computed again, because more inputs may follow now. Rows are missing only after a
            # crash of the machine.
            if not window.is_whole or inputs * self._row_bytes > rows_bytes:
                break
            self.inputs, end = inputs, end + len(line)
            self.skipped += window.skipped
        return end

    def _cut(self, end: int) -> None:
        """Truncate the journal at `end`, and the rows to those that it lists. A new journal starts with the settings."""
        self._journal.truncate(end)
        self._rows.truncate(self.inputs * self._row_bytes)
        self._rows.seek(0, os.SEEK_END)
        if end == 0:
            self._write_line(self._settings)

    def _windows(self) -> Iterator[_Window]:
        self._journal.seek(0)
        self._journal.readline()
        for _, window in self._lines():
            yield window

    def _lines(self) -> Iterator[tuple[bytes, _Window]]:
        """Yield the remaining complete lines of the journal, with the windows that they describe."""
        while (line := self._journal.readline()).endswith(b"\n"):
            yield line, self._decoded(line, _Window)

    def _decoded(self, line: bytes, kind: Any) -> Any:
        try:
            return _decoded(line, kind)
        except _DAMAGE:
            raise self._refusal("its journal is corrupt or from another version") from None

    def _write_line(self, value: msgspec.Struct) -> None:
        self._journal.seek(0, os.SEEK_END)
        self._journal.write(json.dumps(msgspec.to_builtins(value)).encode() + b"\n")
        _flush(self._journal)

    def _update_digest(self, sources: Iterable[Source]) -> None:
        for source in sources:
            self._digest.update(json.dumps([source.id, source.content]).encode())

    def _check_settings(self, found: RunSettings) -> None:
        before, now = (msgspec.to_builtins(settings) for settings in (found, self._settings))
        changed = [f"{name} was {before[name]!r} but is now {now[name]!r}" for name in now if before[name] != now[name]]
        if changed:
            raise self._refusal("; ".join(changed))

    def _refusal(self, reason: str, fix: str = _FIX) -> PlumeExportError:
        return PlumeExportError(f"The run in {self._rows_file} cannot be resumed: {reason}.", fix=fix)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PlumeExportError(
                f"{self._rows_file} cannot be written: {error.strerror or error}.",
                fix="free space, then continue with --resume; or choose another --output",
            ) from error


def _files(output: Path) -> tuple[Path, Path]:
    """Return the paths of the rows and of the journal for `output`."""
    return output.with_name(f".{output.name}.partial"), output.with_name(f".{output.name}.partial.jsonl")


def _decoded(line: bytes, kind: Any) -> Any:
    return msgspec.convert(json.loads(line), kind)  # msgspec's own decoder rejects ids with bytes that are not valid text


def _opened(file: Path, flags: int) -> IO[bytes]:
    return os.fdopen(open_hidden(file, flags), "r+b" if flags & os.O_RDWR else "rb")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
