"""Disks that are full and disks that fail: one sentence, nothing half-written, and what existed stays.

    python -m tests.resilience.full_disk --command build --command embed --count 30 --seed 0

Three ways, each at many places of a run: a file that may not grow further (RLIMIT_FSIZE; the system says EFBIG); os.fsync that
fails (EIO; each of the first calls, then fewer and fewer of the later ones); and, where a file system may be mounted, one with
little room (tmpfs; ENOSPC). After each, the same command has to end as if nothing had been. fsync by SQLite is not reached.
"""

import errno
import importlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click
from rich.console import Console
from rich.table import Table

from .forked import Ended, run_forked
from .kill import COMMANDS, check_success, killable_commands, measured
from .killable import Killable

WAYS = ("file-size", "fsync", "tmpfs")
# Less has not even the log of the run.
_LEAST_BYTES = 16 << 10
_ROOM = "1g"
_MOST_SYNCS = 500


@dataclass
class Tally:
    """What was counted of one command and one way to fail."""

    command: str
    way: str
    failed: int = 0
    not_reached: int = 0
    found: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def fail_often(name: str, way: str, killable: Killable, count: int, seed: int) -> Tally:
    """Run a command on disks that fail, each time followed by a run on a good one. Failures are collected."""
    tally, log = Tally(name, way), killable.directory.with_name(f"{killable.directory.name}.log")
    measured(killable, log)
    disks = {"file-size": _short_files, "fsync": _failing_syncs, "tmpfs": _small_disks}[way]
    for number, (prepare, undo) in enumerate(disks(killable, count, Random(f"{name} {way} {seed}"))):
        killable.reset(number)
        ended = run_forked(killable.arguments(), log, prepare=prepare)
        undo()
        try:
            if ended.code == 0:
                tally.not_reached += 1
                killable.check_ended()
                if way == "fsync":
                    break  # there are no more calls
                continue
            tally.failed += 1
            tally.messages[_checked_message(ended)] += 1
            tally.found[killable.check_stopped()] += 1
            check_success(run_forked(killable.arguments(), log))
            killable.check_ended()
        except Exception as error:
            tally.failures.append(f"{name}, {way} {number}: {type(error).__name__}: {error}")
            break
    return tally


# What a child does before it runs, and what is undone after it.
_Disk = tuple[Callable[[], object], Callable[[], object]]


def _short_files(killable: Killable, count: int, random: Random) -> Iterator[_Disk]:
    """No file may be larger than so many bytes, from few to as many as the largest has."""
    largest = max(file.stat().st_size for file in killable.directory.rglob("*") if file.is_file())
    for _ in range(count):
        most = random.randrange(_LEAST_BYTES, max(largest, _LEAST_BYTES + 1))
        yield lambda most=most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)), lambda: None  # type: ignore[misc]


def _failing_syncs(_: Killable, count: int, random: Random) -> Iterator[_Disk]:
    number = 0
    while number < _MOST_SYNCS:
        yield lambda number=number: _fail_sync(number), lambda: None  # type: ignore[misc]
        number += 1 + number // count


def _fail_sync(number: int) -> None:
    """Let the call of a number, from 0 on, fail in this process."""
    fsync, calls = os.fsync, iter(range(_MOST_SYNCS))

    def fail(descriptor: int) -> None:
        if next(calls) == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    os.fsync = fail


def _small_disks(killable: Killable, count: int, random: Random) -> Iterator[_Disk]:
    """The directory lies on a disk of so many bytes, from few to what a run has left and half of it more."""
    used = sum(file.stat().st_size for file in killable.directory.rglob("*") if file.is_file())
    _check_call("mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", killable.directory)
    try:
        for _ in range(count):
            room = random.randrange(_LEAST_BYTES, used * 3 // 2 + _LEAST_BYTES)
            yield (
                lambda room=room: _resize(killable.directory, room),  # type: ignore[misc]
                lambda: _check_call("mount", "-o", f"remount,size={_ROOM}", killable.directory),
            )
    finally:
        _check_call("umount", killable.directory)


def _resize(directory: Path, room: int) -> None:
    """Leave so many bytes beside what lies there."""
    used = os.statvfs(directory)
    taken = (used.f_blocks - used.f_bfree) * used.f_bsize
    _check_call("mount", "-o", f"remount,size={taken + room}", directory)


def _check_call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def _checked_message(ended: Ended) -> str:
    """Return the reason in an error that is one sentence and its fix."""
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.code == 1, f"exit code {ended.code}\n{ended.stderr}"
    assert len(errors) == 1, f"{len(errors)} errors\n{ended.stderr}"
    assert "internal error" not in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    assert "\n  fix: " in ended.stderr, ended.stderr
    return errors[0].rsplit(": ", 1)[-1]


def print_tallies(tallies: list[Tally]) -> None:
    table = Table(title="full and failing disks", title_justify="left")
    for column in ("command", "way", "failed", "not reached", "output after it", "reasons", "failures"):
        table.add_column(column)
    for tally in tallies:
        found, messages = (
            ", ".join(f"{name} {count}" for name, count in sorted(counted.items())) for counted in (tally.found, tally.messages)
        )
        counts = (str(tally.failed), str(tally.not_reached))
        table.add_row(tally.command, tally.way, *counts, found, messages, str(len(tally.failures)))
    Console(width=120, highlight=False, markup=False).print(table)
    for failure in (failure for tally in tallies for failure in tally.failures):
        click.echo(failure)


@click.command()
@click.option("--command", "names", multiple=True, type=click.Choice(COMMANDS), help="May be repeated.  [default: all]")
@click.option("--way", "ways", multiple=True, type=click.Choice(WAYS), default=WAYS[:2], show_default=True)
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Places of each way but fsync's.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--inputs", type=click.IntRange(min=20), default=120, show_default=True, help="Inputs and pictures of a run.")
@click.option("--portable", type=click.Path(path_type=Path, exists=True), help="Bundle to compile.  [default: made here]")
@click.option("--compiled", type=click.Path(path_type=Path, exists=True), help="Bundle to embed with.  [default: made here]")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to work; kept if something fails.")
def main(
    names: tuple[str, ...],
    ways: tuple[str, ...],
    count: int,
    seed: int,
    inputs: int,
    portable: Path | None,
    compiled: Path | None,
    directory: Path | None,
) -> None:
    """Run commands on full and failing disks. Exit code 1 if anything is wrong."""
    os.environ["OMP_NUM_THREADS"] = "1"  # libraries' threads do not survive a fork
    work = Path(tempfile.mkdtemp(prefix="full-disk-", dir=directory)).resolve()
    os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    commands = killable_commands(work, list(names or COMMANDS), portable, compiled, inputs=inputs, is_cold=False)
    tallies = []
    for name, killable in commands.items():
        for module in killable.modules:
            importlib.import_module(module)
        for way in ways:
            tallies.append(fail_often(name, way, killable, count, seed))
            click.echo(f"{name}, {way}: {tallies[-1].failed} failed", err=True)
    print_tallies(tallies)
    if any(tally.failures for tally in tallies):
        raise SystemExit(f"what failed is kept in {work}")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
