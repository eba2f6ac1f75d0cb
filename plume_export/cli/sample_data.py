"""The command `sample-data`."""

from functools import partial
from pathlib import Path

import click

from ..plume_tiny.sample_data import write_sample_data
from .documents import document_from_path
from .messages import report_step
from .switches import Answer, command


@command(name="sample-data")
@click.argument("output", type=click.Path(path_type=Path))
def sample_data(output: Path) -> Answer:
    """Generate sample images for `search`, and plume-tiny's evaluation dataset.

    The evaluation dataset is held out: plume-tiny was not trained on it.
    """
    write_sample_data(output, report_step)
    return Answer(document_from_path(output), partial(click.echo, str(output)))


COMMANDS = (sample_data,)
