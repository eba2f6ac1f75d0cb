"""The command group and how errors reach the user."""

import sys
from typing import Any

import click

from .. import __version__
from ..errors import PlumeExportError
from . import build, doctor, embed, evaluate, inspect, parity, sample_data, search


class _Group(click.Group):
    """Prints a PlumeExportError as one message and exits with code 1; --debug shows the traceback instead."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except PlumeExportError as error:
            if context.params.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="plume-export")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Export, compile and run PLUME, a universal multimodal embedding model."""


for module in (build, embed, search, evaluate, parity, inspect, sample_data, doctor):
    for command in module.COMMANDS:
        main.add_command(command)
