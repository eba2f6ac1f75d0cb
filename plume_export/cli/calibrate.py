"""The command `calibrate`."""

from functools import partial
from pathlib import Path

import click

from ..bundle import check_writable
from ..pipeline import ModelOptions, check_checkpoint_name, open_checkpoint
from ..samples import PLUME_TINY, calibration_inputs_file
from .documents import document_from_path
from .messages import report_step, warn
from .switches import Answer, command


@command()
@click.option("--checkpoint", default=PLUME_TINY, show_default=True, help="Directory or Hugging Face hub id.")
@click.option(
    "--inputs", type=click.Path(path_type=Path), help="JSON lines as for embed.  [default: the built-in calibration set]"
)
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Output file of activation ranges, .npz.")
@click.option("--revision", help="Branch, tag or commit of a hub id.  [default: main]")
@click.option("--offline", is_flag=True, help="Use only the local Hugging Face cache; do not download.")
def calibrate(checkpoint: str, inputs: Path | None, output: Path, revision: str | None, offline: bool) -> Answer:
    """Record the activation ranges for int8 and for the float16 overflow check.

    Runs the fp32 model on the calibration inputs. The weights are read one layer at a time.
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
