"""The process that runs cases, one after the other: what crashes, hangs or takes all memory takes no more than this with it."""

import faulthandler
import os
import shutil
import sys
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from plume_export.errors import PlumeExportError
from plume_export.machine.resident_memory import resident_memory

from .surface import Cases, Files, Surface
from .surfaces import load_surface

# Of a traceback: the last ones say where.
_FRAMES = 6

Outcome = Literal["accepted", "refused", "exception"]


@dataclass(frozen=True)
class Job:
    """Cases `first` to `last`, that one not included, of a surface."""

    surface: str
    first: int
    last: int


@dataclass(frozen=True)
class Done:
    """One case that came to its end. `detail` is the traceback of an exception."""

    outcome: Outcome
    detail: str
    resident_bytes: int
    peak_bytes: int  # of the process so far


def work(connection: Connection, jobs: list[Job], seed: int, directory: Path, log: Path) -> None:
    """Send one `Done` a case. `directory` is this process's own; what it prints goes to `log`."""
    _redirect_output(log)
    for job in jobs:
        surface = load_surface(job.surface)
        scratch = Scratch(surface, directory / job.surface)
        cases = Cases(surface, scratch.template, seed)
        connection.send(None)
        for number in range(job.first, job.last):
            outcome, detail = scratch.run(cases[number])
            memory = resident_memory()
            connection.send(Done(outcome, detail, memory.now, memory.peak))


class Scratch:
    """A surface's files, put right again after every case."""

    def __init__(self, surface: Surface, directory: Path) -> None:
        self._surface = surface
        self.template, self.directory = directory / "template", directory / "case"
        if not self.template.is_dir():
            partial = directory / "template.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            surface.write(partial)
            partial.rename(self.template)
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self.template, self.directory)
        self._states = self._found()

    def run(self, files: Files) -> tuple[Outcome, str]:
        """Change the files, read them, put them right."""
        self.change(files)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._surface.read(self.directory)
        except PlumeExportError as error:
            return "refused", str(error)
        except Exception:
            return "exception", traceback.format_exc(limit=-_FRAMES)
        finally:
            self._restore()
        return "accepted", ""

    def change(self, files: Files) -> None:
        for name, content in files.items():
            if content is None:
                (self.directory / name).unlink()
            else:
                (self.directory / name).write_bytes(content)

    def _restore(self) -> None:
        found = self._found()
        for name in found.keys() - self._states.keys():
            (self.directory / name).unlink()
        changed = [name for name, state in self._states.items() if found.get(name) != state]
        for name in changed:
            shutil.copyfile(self.template / name, self.directory / name)
        if changed:
            self._states = self._found()

    def _found(self) -> dict[str, tuple[int, int, int]]:
        """What tells of a change, by file."""
        files = [entry for entry in self.directory.rglob("*") if not entry.is_dir() or entry.is_symlink()]
        states = {str(file.relative_to(self.directory)): file.lstat() for file in files}
        return {name: (state.st_size, state.st_mtime_ns, state.st_ino) for name, state in states.items()}


def _redirect_output(log: Path) -> None:
    """Decoders print what they think of a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno() if stream.fileno() > 0 else 1)
    faulthandler.enable()
