"""sample-data."""

from pathlib import Path

import click

from ..plume_tiny.sample_data import write_sample_data


@click.command(name="sample-data")
@click.argument("output", type=click.Path(path_type=Path))
def sample_data(output: Path) -> None:
    """Draw what plume-tiny knows: pictures to search, and an evaluation set that its training never saw."""
    write_sample_data(output)
    click.echo(str(output))


COMMANDS = (sample_data,)
