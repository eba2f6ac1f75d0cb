"""SIGKILL at random moments: nothing half-made opens, nothing finished is lost, and the next run ends as if nothing had been.

    python -m tests.resilience.kill --command build --command embed --count 100 --seed 0

Moments are uniform over the time that a run takes, which is measured first. A kill is followed by another run over what it
left: half of the time killed too, else to its end, after which the next round starts afresh, with an older result at the
output in every second round. What a command imports is imported before, and graphs are traced once, so that kills fall into
the work that touches files; `--cold` traces anew in every run. The table counts what stood at the output after a kill.
"""

import importlib
import os
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click
from rich.console import Console
from rich.table import Table

from plume_export.samples import PLUME_TINY

from .forked import Ended, run_forked
from .killable import Calibrates, DrawsSampleData, Embeds, Killable, Searches, WritesBundle

COMMANDS = ("build", "export", "compile", "embed", "search", "calibrate", "sample-data")
_MEASURED_RUNS = 2
# Draws that a command may outlive before its time is measured too long.
_MISSES_A_KILL = 20


@dataclass
class Tally:
    """What was counted of one command. `found` is what stood at the output after a kill."""

    command: str
    seconds: float = 0.0
    kills: int = 0
    ended_first: int = 0
    finished: int = 0
    found: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def kill_at_random(name: str, killable: Killable, count: int, seed: int, report: Callable[[str], None]) -> Tally:
    """Kill a command `count` times. Failures are collected; the directory of the first is kept beside its own."""
    random, tally = Random(f"{name} {seed}"), Tally(name)
    log = killable.directory.with_name(f"{killable.directory.name}.log")
    tally.seconds = measured(killable, log)
    number = 0
    killable.reset(number)
    while tally.kills < count and not tally.failures:
        assert tally.ended_first < _MISSES_A_KILL * count, f"{name} always ends before it is killed"
        ended = run_forked(killable.arguments(), log, kill_after=random.uniform(0, tally.seconds))
        try:
            if ended.is_killed:
                tally.kills += 1
                tally.found[killable.check_stopped()] += 1
                if random.random() < 0.5:
                    continue
                ended = run_forked(killable.arguments(), log)
            else:
                tally.ended_first += 1
            check_success(ended)
            killable.check_ended()
        except Exception as error:
            tally.failures.append(f"{name}, kill {tally.kills}, round {number}: {type(error).__name__}: {error}")
            continue
        tally.finished += 1
        number += 1
        killable.reset(number)
        report(f"{name}: {tally.kills} of {count} kills, {tally.finished} runs to their end, {dict(tally.found)}")
    return tally


def killable_commands(
    directory: Path, names: list[str], portable: Path | None, compiled: Path | None, *, inputs: int, is_cold: bool
) -> dict[str, Killable]:
    """Return the commands by name; bundles that they need are made in `directory` where they are not given."""
    log = directory / "made.log"
    if not is_cold and {"build", "export"} & {*names}:
        _trace_once(directory)
    is_compiled_here = compiled is None and bool({"embed", "search"} & {*names})
    if portable is None and (is_compiled_here or "compile" in names):
        portable = directory / "portable"
        check_success(run_forked(["export", *_CHEAP, "-o", str(portable)], log))
    if is_compiled_here:
        compiled = directory / "compiled"
        check_success(run_forked(["compile", str(portable), "--target", "cpu", "-o", str(compiled)], log))
    made: dict[str, Callable[[], Killable]] = {
        "build": lambda: WritesBundle(directory / "build", ["build", *_CHEAP, "--target", "cpu"]),
        "export": lambda: WritesBundle(directory / "export", ["export", *_CHEAP]),
        "compile": lambda: WritesBundle(
            directory / "compile", ["compile", str(portable), "--target", "cpu"], source=Path(str(portable))
        ),
        "embed": lambda: Embeds(directory / "embed", Path(str(compiled)), inputs),
        "search": lambda: Searches(directory / "search", Path(str(compiled)), inputs),
        "calibrate": lambda: Calibrates(directory / "calibrate"),
        "sample-data": lambda: DrawsSampleData(directory / "sample-data"),
    }
    return {name: made[name]() for name in names}


_CHEAP = ("--checkpoint", PLUME_TINY, "--precision", "fp16", "--no-range-guard")


def measured(killable: Killable, log: Path) -> float:
    """Run to the end a few times; return the time that it takes, and let the command learn what is right."""
    seconds = []
    for _ in range(_MEASURED_RUNS):
        killable.reset(0)
        ended = run_forked(killable.arguments(), log)
        check_success(ended)
        seconds.append(ended.seconds)
    killable.learn()
    return statistics.median(seconds)


def check_success(ended: Ended) -> None:
    assert ended.code == 0, f"exit code {ended.code}\n{ended.stderr}"


def _trace_once(cache: Path) -> None:
    """Let all processes that are forked off take the traces that the tests keep."""
    from plume_export import portable_bundle

    from ..traced_graphs import kept_traces

    portable_bundle.trace_model_graph = kept_traces(cache)


def print_tallies(tallies: list[Tally]) -> None:
    table = Table(title="SIGKILL at random moments", title_justify="left")
    for column in ("command", "seconds a run", "kills", "ended first", "runs to the end", "output after a kill", "failures"):
        table.add_column(column)
    for tally in tallies:
        found = ", ".join(f"{name} {count}" for name, count in sorted(tally.found.items()))
        counts = (str(count) for count in (tally.kills, tally.ended_first, tally.finished))
        table.add_row(tally.command, f"{tally.seconds:.2f}", *counts, found, str(len(tally.failures)))
    Console(width=120, highlight=False, markup=False).print(table)
    for failure in (failure for tally in tallies for failure in tally.failures):
        click.echo(failure)


@click.command()
@click.option("--command", "names", multiple=True, type=click.Choice(COMMANDS), help="May be repeated.  [default: all]")
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="Kills of each command.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--inputs", type=click.IntRange(min=20), default=120, show_default=True, help="Inputs and pictures of a run.")
@click.option("--portable", type=click.Path(path_type=Path, exists=True), help="Bundle to compile.  [default: made here]")
@click.option("--compiled", type=click.Path(path_type=Path, exists=True), help="Bundle to embed with.  [default: made here]")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to work; kept if something fails.")
@click.option("--cold", "is_cold", is_flag=True, help="Trace graphs in every run, too.")
def main(
    names: tuple[str, ...],
    count: int,
    seed: int,
    inputs: int,
    portable: Path | None,
    compiled: Path | None,
    directory: Path | None,
    is_cold: bool,
) -> None:
    """Kill commands at random moments and check what is left. Exit code 1 if anything is wrong."""
    os.environ["OMP_NUM_THREADS"] = "1"  # libraries' threads do not survive a fork
    work = Path(tempfile.mkdtemp(prefix="kill-", dir=directory)).resolve()
    os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    chosen = list(names or COMMANDS)
    commands = killable_commands(work, chosen, portable, compiled, inputs=inputs, is_cold=is_cold)
    tallies = []
    for name, killable in commands.items():
        for module in killable.modules:
            importlib.import_module(module)
        tallies.append(kill_at_random(name, killable, count, seed, lambda line: click.echo(line, err=True)))
    print_tallies(tallies)
    if any(tally.failures for tally in tallies):
        raise SystemExit(f"what failed is kept in {work}")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
