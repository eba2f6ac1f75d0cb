"""sample-data."""

from pathlib import Path

import click

from ..plume_tiny.sample_data import write_sample_data


@click.command(name="sample-data")
@click.argument("output", type=click.Path(path_type=Path))
def sample_data(output: Path) -> None:
    """Draw pictures to search, and plume-tiny's evaluation set, which its training never saw."""
    write_sample_data(output)
    click.echo(str(output))


COMMANDS = (sample_data,)
