"""The command group."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from .failure import exit_with
from .signals import stop_on_signals
from .streams import prepare_streams, printing
from .switches import switch_options

# Command -> its module, and the first line of its help. Listing the commands imports none of the modules.
COMMANDS: dict[str, tuple[str, str]] = {
    "build": ("build", "Build a runnable bundle from a checkpoint: export, compile, self-test."),
    "export": ("build", "Export a checkpoint as a portable ONNX bundle."),
    "compile": ("build", "Compile a portable bundle for a target. Does not need PyTorch."),
    "targets": ("build", "List the targets that a bundle can be compiled for."),
    "calibrate": ("calibrate", "Record the activation ranges for int8 and for the float16 overflow check."),
    "plan": ("build", "Compute the device memory that a target's engines need."),
    "embed": ("embed", "Embed texts, images and videos with a bundle."),
    "search": ("search", "Rank a folder's images by TEXT, an image or both."),
    "evaluate": ("evaluate", "Measure retrieval on a dataset."),
    "parity": ("parity", "Compare a bundle with the PyTorch reference, stage by stage."),
    "selftest": ("parity", "Check a bundle on this machine. Does not need PyTorch."),
    "bench": ("bench", "Measure a bundle against PyTorch, other bundles and the hardware's limits."),
    "inspect": ("inspect", "Show a bundle's properties and verify the hash of every file."),
    "sample-data": ("sample_data", "Generate sample images for `search`, and plume-tiny's evaluation dataset."),
    "random-checkpoint": ("build", "Write a checkpoint with random weights in the layout of the original checkpoint."),
    "doctor": ("doctor", "Check this machine's GPU and software, suggest a fix for each problem, and say what works."),
}


class _Group(click.Group):
    """A command group that imports a command's module when the command runs. failure.py ends the program."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[name][0]}", __package__)
        command: click.Command = next(command for command in module.COMMANDS if command.name == name)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError as error:  # click would exit with 1
            exit_with(error, [])

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        try:
            prepare_streams()
            exit_code = super().main(arguments, *others, **options)
            with printing():
                sys.stdout.flush()
        except Exception as error:
            exit_with(error, arguments)
        sys.exit(exit_code)


_EXIT_CODES = (
    "Exit codes: 0 success; 1 failure, such as an invalid file; 2 usage error: a wrong option or value; "
    "128 + N: stopped by signal N."
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, params=switch_options(), epilog=_EXIT_CODES)
@click.version_option(package_name="plume-export", prog_name="plume-export")
def main() -> None:
    """Export, compile and run PLUME, a universal multimodal embedding model."""
    stop_on_signals()
