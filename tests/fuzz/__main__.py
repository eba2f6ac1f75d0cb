"""Fuzz every surface, or run one case again. Exit code 1 with findings."""

import sys
import tempfile
from pathlib import Path

import click

from .supervisor import Limits, Tally, fuzz, shares
from .surface import Cases
from .surfaces import NAMES, load_surface
from .worker import Scratch


@click.command()
@click.option("--cases", "total", default=100_000, show_default=True, help="How many, over all surfaces.")
@click.option("--seed", default=0, show_default=True)
@click.option("--surface", "names", type=click.Choice(NAMES), multiple=True, help="Only these.")
@click.option("--workers", default=2, show_default=True, help="Processes at a time.")
@click.option("--hang-s", default=Limits.hang_s, show_default=True, help="A case that takes longer is a finding.")
@click.option("--memory-mib", default=Limits.memory_bytes >> 20, show_default=True, help="A case that takes more is a finding.")
@click.option("--minutes", default=Limits.run_s / 60, help="Stop then, and say how far it came.")
@click.option("--case", "number", type=int, help="Run this case of one --surface again, in this process.")
def main(
    total: int,
    seed: int,
    names: tuple[str, ...],
    workers: int,
    hang_s: float,
    memory_mib: int,
    minutes: float,
    number: int | None,
) -> None:
    """Damage files of every kind that a user hands in, and read them."""
    if number is not None:
        if len(names) != 1:
            raise click.UsageError("--case takes one --surface")
        _run_again(names[0], seed, number)
        return
    weights = {name: load_surface(name).weight for name in names or NAMES}
    limits = Limits(hang_s, memory_mib << 20, 60 * minutes)
    report = lambda line: click.echo(line, err=True)  # noqa: E731
    tallies = fuzz(shares(total, weights), seed=seed, workers=workers, limits=limits, report=report)
    _print_findings(tallies)
    _print_table(tallies)
    sys.exit(any(tally.findings for tally in tallies.values()))


def _run_again(name: str, seed: int, number: int) -> None:
    surface = load_surface(name)
    directory = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-{number}-"))
    scratch = Scratch(surface, directory)
    scratch.change(Cases(surface, scratch.template, seed)[number])
    click.echo(f"the case's files are in {scratch.directory}")
    surface.read(scratch.directory)
    click.echo("accepted")


def _print_findings(tallies: dict[str, Tally]) -> None:
    """One of each: those that end in the same line of the same function are alike."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for tally in tallies.values():
        for finding in tally.findings:
            lines = finding.detail.strip().splitlines()
            places = [line.strip() for line in lines if line.startswith("  File ")]
            alike.setdefault((finding.surface, finding.kind, *places[-1:], lines[-1].split(":")[0]), []).append(str(finding))
    for found in alike.values():
        click.echo(f"{len(found)} x {found[0]}\n")


def _print_table(tallies: dict[str, Tally]) -> None:
    row = "{:<15} {:>8} {:>9} {:>8} {:>9} {:>10} {:>9}"
    click.echo(row.format("surface", "cases", "accepted", "refused", "findings", "peak MiB", "end MiB"))
    for name, t in tallies.items():
        click.echo(row.format(name, t.cases, t.accepted, t.refused, len(t.findings), t.peak_bytes >> 20, t.end_bytes >> 20))
    parts = [(t.cases, t.accepted, t.refused, len(t.findings)) for t in tallies.values()]
    sums = [sum(column) for column in zip(*parts, strict=True)]
    click.echo(row.format("all", *sums, max(t.peak_bytes for t in tallies.values()) >> 20, ""))


if __name__ == "__main__":
    main()
