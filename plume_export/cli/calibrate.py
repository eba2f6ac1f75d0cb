"""calibrate."""

from functools import partial
from pathlib import Path

import click

from ..embed_file import check_writable
from ..pipeline import ModelOptions, check_checkpoint_name, open_checkpoint
from ..samples import PLUME_TINY, calibration_inputs_file
from .documents import document_from_path
from .messages import report_step, warn
from .switches import Answer, command


@command()
@click.option("--checkpoint", default=PLUME_TINY, show_default=True, help="Directory or Hugging Face hub id.")
@click.option("--inputs", type=click.Path(path_type=Path), help="JSON lines as for embed.  [default: the set that ships]")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="The file of ranges, .npz.")
@click.option("--revision", help="Branch, tag or commit of a hub id.  [default: main]")
@click.option("--offline", is_flag=True, help="Take a hub id from the local cache only.")
def calibrate(checkpoint: str, inputs: Path | None, output: Path, revision: str | None, offline: bool) -> Answer:
    """Measure the ranges that int8 and the fp16 guard need.

    Runs the fp32 model over the calibration inputs, its weights read layer by layer.
    """
    check_checkpoint_name(checkpoint)
    inputs = inputs or calibration_inputs_file()
    check_writable(output, [inputs, Path(checkpoint)], suffixes=[".npz"])
    opened = open_checkpoint(checkpoint, ModelOptions(), revision=revision, offline=offline)
    from ..quantise.activation_ranges import write_ranges
    from ..quantise.calibrate import calibrate, coverage_warning

    report_step("calibrating")
    ranges = calibrate(opened, inputs, report_step)
    write_ranges(ranges, output)
    report_step("done")
    if (warning := coverage_warning(ranges.about)) is not None:
        warn(warning)
    return Answer(document_from_path(output), partial(click.echo, str(output)))


COMMANDS = (calibrate,)
