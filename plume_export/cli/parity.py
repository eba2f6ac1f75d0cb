"""The commands `parity` and `selftest`."""

from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from ..bundle import open_bundle
from ..inputs import sources_from_file
from ..parity import ParityReport
from ..parity.table import table_from_report, verdict
from ..pipeline import ModelOptions, open_checkpoint
from ..runtime.embedder import Embedder
from ..samples import sample_inputs_file
from ..selftest import run_selftest
from .console import print_selftest, print_table
from .shared_options import verify_option
from .switches import Answer, command


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--checkpoint", required=True, help="The checkpoint that the bundle was made from.")
@click.option("--inputs", type=click.Path(path_type=Path), help="JSON lines as for embed.  [default: the sample inputs]")
@click.option("--reference-precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--revision", help="Branch, tag or commit of a hub id.  [default: main]")
@click.option("--offline", is_flag=True, help="Use only the local Hugging Face cache; do not download.")
@verify_option
def parity(
    bundle: Path,
    checkpoint: str,
    inputs: Path | None,
    reference_precision: Any,
    revision: str | None,
    offline: bool,
    verify_hashes: bool,
) -> Answer:
    """Compare a bundle with the PyTorch reference, stage by stage."""
    opened = open_bundle(bundle, verify_hashes=verify_hashes)
    original = open_checkpoint(checkpoint, ModelOptions(), revision=revision, offline=offline)
    from ..parity.reference_run import measure_parity

    items = [source.read() for source in sources_from_file(inputs or sample_inputs_file())]
    with Embedder(opened) as embedder:
        report = measure_parity(embedder, original, items, reference_precision=reference_precision)
    document = {"first_bad_stage": report.first_bad_stage, **msgspec.to_builtins(report)}
    show = partial(_print_parity, report, f"{bundle} against {checkpoint}")
    return Answer(document, show, 0 if report.first_bad_stage is None else 1)


def _print_parity(report: ParityReport, title: str) -> None:
    print_table(table_from_report(report, title))
    click.echo(verdict(report))


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads per operator (intra-op threads).")
@verify_option
def selftest(bundle: Path, threads: int | None, verify_hashes: bool) -> Answer:
    """Check a bundle on this machine. Does not need PyTorch.

    Prints the deviation from the saved reference outputs, the latency of each stage and peak memory.
    """
    report = run_selftest(bundle, threads=threads, verify_hashes=verify_hashes)
    return Answer(report, partial(print_selftest, report), 0 if report.parity.first_bad_stage is None else 1)


COMMANDS = (parity, selftest)
