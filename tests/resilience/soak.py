"""Many threads, one embedder, for long: no row differs from a single run's, and memory stays level.

    python -m tests.resilience.soak --minutes 60 --threads 8

Calls of `embed` mix texts, pictures of many sizes, several pictures, videos and bad inputs (mixed_calls.py). Each call is run
alone first, by another embedder in one thread: a row whose bits are others than then counts as differing, and as wrong below a
cosine of 0.99999. Then, too, every row is compared with its item's embedded alone: in another batch, and so padded otherwise.
Resident memory is read every second; its slope is that of the least squares line through the second half.
"""

import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click
import numpy as np
import psutil

from plume_export import Embedder

from .mixed_calls import Call, mixed_call

_LEAST_COSINE = 0.99999
_STALLED_S = 600.0
_MIB = 1 << 20


@dataclass
class Soak:
    """What was counted. `alone_cosine` is the lowest of a row with its item alone; `resident` is in MiB, by second."""

    alone_cosine: float = 1.0
    calls: int = 0
    rows: Counter[str] = field(default_factory=Counter)  # equal, differing, wrong; of NaN: skipped
    errors: Counter[str] = field(default_factory=Counter)  # expected, unexpected
    unexpected: list[str] = field(default_factory=list)
    resident: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.rows["wrong"] and not self.unexpected and self.alone_cosine >= _LEAST_COSINE

    def memory(self) -> tuple[float, float, float]:
        """Return MiB at the start and end of the second half, medians of a tenth of it each, and its slope in MiB an hour."""
        seconds, resident = np.array(self.resident).T
        rest = seconds >= seconds[-1] / 2  # before, calls run for the first time
        seconds, resident = seconds[rest], resident[rest]
        part = max(1, len(resident) // 10)
        slope = np.polyfit(seconds, resident, 1)[0] * 3600 if len(resident) > 2 else 0.0
        return float(np.median(resident[:part])), float(np.median(resident[-part:])), float(slope)


def soak(bundle: Path, *, seconds: float, threads: int, calls: int, most_pixels: int, seed: int = 0) -> Soak:
    """Run `calls` different calls over and over from `threads` threads. Raises AssertionError if a thread stands still."""
    result, lock, is_over = Soak(), threading.Lock(), threading.Event()
    numbers = range(seed * calls, (seed + 1) * calls)
    expected = _expected(bundle, numbers, most_pixels, result)

    def work(thread: int) -> None:
        random = Random(f"{seed} {thread}")
        while not is_over.is_set():
            number = random.choice(numbers)
            try:
                found = mixed_call(number, most_pixels).run(embedder)
            except Exception as error:  # none but the expected ones may come
                found = f"{type(error).__name__}: {error}"
            with lock:
                result.calls += 1
                _compare(number, expected[number], found, result)

    with Embedder(bundle) as embedder:
        workers = [
            threading.Thread(target=work, args=(thread,), name=f"soak {thread}", daemon=True) for thread in range(threads)
        ]
        for worker in workers:
            worker.daemon = True  # one that stands still does not keep the process
            worker.start()
        _watch(seconds, result)
        is_over.set()
        for worker in workers:
            worker.join(_STALLED_S)
            assert not worker.is_alive(), f"{worker.name} stands still"
    return result


def _expected(bundle: Path, numbers: range, most_pixels: int, result: Soak) -> dict[int, np.ndarray | str]:
    """Run every call alone, and every item of it alone."""
    expected = {}
    with Embedder(bundle) as embedder:
        for number in numbers:
            call = mixed_call(number, most_pixels)
            expected[number] = found = call.run(embedder)
            if isinstance(found, str):
                continue
            for item, row in zip(call.items, found, strict=True):
                alone = Call([item], 1, call.on_error).run(embedder)
                assert isinstance(alone, np.ndarray), f"call {number}: {alone}"
                if not np.isnan(row).any():
                    result.alone_cosine = min(result.alone_cosine, float(row.astype(np.float64) @ alone[0]))
    return expected


def _compare(number: int, expected: np.ndarray | str, found: np.ndarray | str, result: Soak) -> None:
    if isinstance(expected, str) or isinstance(found, str):
        is_expected = isinstance(expected, str) and isinstance(found, str) and expected == found
        result.errors["expected" if is_expected else "unexpected"] += 1
        if not is_expected:
            result.unexpected.append(f"call {number}: {found if isinstance(found, str) else 'rows'}, expected {expected}")
        return
    if expected.shape != found.shape:
        result.unexpected.append(f"call {number}: shape {found.shape}, expected {expected.shape}")
        return
    for before, after in zip(expected, found, strict=True):
        if np.array_equal(before, after, equal_nan=True):
            result.rows["skipped" if np.isnan(before).any() else "equal"] += 1
        else:
            is_near = float(before.astype(np.float64) @ after) >= _LEAST_COSINE  # false for NaN
            result.rows["differing" if is_near else "wrong"] += 1


def _watch(seconds: float, result: Soak) -> None:
    """Read resident memory every second; a run in which no call ends any more is over."""
    process, started = psutil.Process(), time.monotonic()
    calls, changed = 0, started
    while (now := time.monotonic()) < started + seconds:
        result.resident.append((now - started, process.memory_info().rss / _MIB))
        if result.calls != calls:
            calls, changed = result.calls, now
        assert now - changed < _STALLED_S, f"no call has ended for {_STALLED_S:.0f} s"
        time.sleep(1)


def _build(directory: Path) -> Path:
    bundle = directory / "bundle"
    command = [sys.executable, "-m", "plume_export", "build", "--precision", "fp32", "--target", "cpu", "-o", str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    return bundle


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.01), default=60, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--calls", type=click.IntRange(min=1), default=200, show_default=True, help="Different calls.")
@click.option(
    "--most-pixels", type=click.IntRange(min=64), default=800, show_default=True, help="Width and height of pictures."
)
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), help="[default: plume-tiny in fp32, built here]")
@click.option("--seed", type=int, default=0, show_default=True)
def main(minutes: float, bundle: Path | None, **options: int) -> None:
    """Embed from many threads for long. Exit code 1 if a row is wrong or an error was not expected."""
    warnings.simplefilter("ignore")  # what is skipped
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        result = soak(bundle or _build(Path(place)), seconds=60 * minutes, **options)
    first, last, slope = result.memory()
    click.echo(f"{result.calls:,} calls in {minutes:g} minutes from {options['threads']} threads")
    click.echo("rows: " + ", ".join(f"{count:,} {name}" for name, count in sorted(result.rows.items())))
    click.echo("calls that end with an error: " + ", ".join(f"{count:,} {name}" for name, count in result.errors.items()))
    click.echo(f"lowest cosine of a row with its item alone: {result.alone_cosine:.8f}")
    click.echo(f"resident memory: {first:,.0f} MiB at half time, {last:,.0f} MiB at the end, {slope:+,.1f} MiB an hour")
    for line in result.unexpected[:20]:
        click.echo(line)
    raise SystemExit(0 if result.is_good else 1)


if __name__ == "__main__":
    main()
