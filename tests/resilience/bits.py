"""Flipped bytes of a bundle: each is found when the bundle is opened, or changes nothing that is read.

    python -m tests.resilience.bits BUNDLE --sample 2000 --unverified 100 --seed 0

Every position of the manifest and of every file up to a MiB, a sample of the larger files' positions; by turns one bit, chosen
at random, and all eight. A flip in the manifest is harmless if what is read is equal. With `--unverified`, as many flips are
embedded with, unverified: nothing is promised of these, and the table says what comes of them.
"""

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from plume_export.bundle import MANIFEST, Bundle, open_bundle
from plume_export.bundle.bundle import check_file, read_manifest
from plume_export.errors import BundleError, PlumeExportError
from plume_export.inputs import Item

_SMALL_BYTES = 1 << 20
_HANG_S = 120
_ITEMS = (Item(text="two red circles"), Item(text="a page"))


def flip_every_byte(directory: Path, sample: int, seed: int) -> dict[str, Counter[str]]:
    """Flip bytes of a bundle's files, one at a time; count by file what was found, harmless and silent. Leaves it as it was."""
    manifest = read_manifest(directory)
    counts = {MANIFEST: Counter[str]()}
    for _ in flips(directory / MANIFEST, sample, seed, is_whole=True):
        try:
            is_equal = read_manifest(directory) == manifest
            counts[MANIFEST]["harmless" if is_equal else "silent"] += 1
        except BundleError:
            counts[MANIFEST]["found"] += 1
    for name, entry in manifest.files.items():
        counts[name] = Counter()
        for _ in flips(directory / name, sample, seed):
            try:
                check_file(directory, name, entry, verify_hash=True)
                counts[name]["silent"] += 1
            except BundleError:
                counts[name]["found"] += 1
    return counts


def flips(file: Path, sample: int, seed: int, *, is_whole: bool = False) -> Iterator[int]:
    """Yield positions, the byte at which is changed meanwhile: all of a file that is small or meant whole, else a sample."""
    random, size = Random(f"{file.name} {seed}"), file.stat().st_size
    positions = range(size) if is_whole or size <= _SMALL_BYTES else sorted(random.sample(range(size), min(sample, size)))
    descriptor = os.open(file, os.O_RDWR)
    try:
        for position in positions:
            before = os.pread(descriptor, 1, position)
            mask = 0xFF if position % 2 else 1 << random.randrange(8)
            os.pwrite(descriptor, bytes([before[0] ^ mask]), position)
            try:
                yield position
            finally:
                os.pwrite(descriptor, before, position)
    finally:
        os.close(descriptor)


def embed_unverified(directory: Path, count: int, seed: int) -> dict[str, Counter[str]]:
    """Flip a byte of a random file, embed unverified in a process of its own; count by file what came of it."""
    random = Random(f"unverified {seed}")
    before = _outcome(directory, None)
    assert isinstance(before, np.ndarray), before
    names = sorted(open_bundle(directory).manifest.files)
    counts: dict[str, Counter[str]] = {}
    for _ in range(count):
        name = random.choice(names)
        file = directory / name
        data = file.read_bytes()
        position = random.randrange(len(data))
        file.write_bytes(data[:position] + bytes([data[position] ^ (1 << random.randrange(8))]) + data[position + 1 :])
        after = _outcome(directory, before)
        file.write_bytes(data)
        counts.setdefault(name, Counter())[str(after)] += 1
    return counts


def _outcome(directory: Path, before: np.ndarray | None) -> np.ndarray | str:
    """Embed in a child. Return its embeddings, or, beside those of before, what became of them."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "embeddings.npy"
        child = os.fork()
        if child == 0:
            _embed(directory, output)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == -signal.SIGALRM:
            return "hangs"
        if status < 0:
            return "crashes"
        if status > 0:
            return "refused" if status == 1 else "another error"
        after = np.load(output)
    if before is None:
        return after
    return "same embeddings" if np.array_equal(before, after) else "other embeddings"


def _embed(directory: Path, output: Path) -> None:
    code = 2
    signal.alarm(_HANG_S)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    try:
        from plume_export import Embedder

        with Embedder(Bundle(directory, read_manifest(directory)), threads=1) as embedder:
            np.save(output, embedder.embed(list(_ITEMS)))
        code = 0
    except PlumeExportError:
        code = 1
    finally:
        os._exit(code)


def print_counts(title: str, counts: dict[str, Counter[str]]) -> None:
    columns = sorted({outcome for counted in counts.values() for outcome in counted})
    table = Table(title=title, title_justify="left")
    for column in ("file", "flips", *columns):
        table.add_column(column, justify="left" if column == "file" else "right")
    counts = {**counts, "together": sum(counts.values(), Counter[str]())}
    for name, counted in counts.items():
        table.add_row(name, f"{counted.total():,}", *(f"{counted[column]:,}" for column in columns))
    Console(width=120, highlight=False, markup=False).print(table)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--sample", type=click.IntRange(min=1), default=2000, show_default=True, help="Flips of each file over a MiB.")
@click.option("--unverified", type=click.IntRange(min=0), default=0, show_default=True, help="Flips to embed with unverified.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(bundle: Path, sample: int, unverified: int, seed: int) -> None:
    """Flip bytes of a copy of BUNDLE. Exit code 1 if one is silent."""
    with tempfile.TemporaryDirectory(prefix="bits-") as place:
        copy = Path(shutil.copytree(bundle, Path(place) / "bundle"))
        counts = flip_every_byte(copy, sample, seed)
        print_counts("one byte flipped", counts)
        if unverified:
            print_counts("one bit flipped, not verified", embed_unverified(copy, unverified, seed))
    raise SystemExit(int(any(counted["silent"] for counted in counts.values())))


if __name__ == "__main__":
    main()
