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

# Command -> its module here, and the first line of its help: listing the commands imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "build": ("build", "Checkpoint to runnable bundle: export, compile, self-test."),
    "export": ("build", "Checkpoint to portable ONNX bundle."),
    "compile": ("build", "Compile a portable bundle for a target. Needs no torch."),
    "targets": ("build", "List what a bundle can be compiled for."),
    "calibrate": ("calibrate", "Measure the ranges that int8 and the fp16 guard need."),
    "plan": ("build", "Compute what a target's engines need on its device."),
    "embed": ("embed", "Embed texts, images and videos with a bundle."),
    "search": ("search", "Rank a folder's pictures by TEXT, a picture or both."),
    "evaluate": ("evaluate", "Measure retrieval on a dataset."),
    "parity": ("parity", "Compare a bundle with the PyTorch reference, stage by stage."),
    "selftest": ("parity", "Check a bundle on this machine. Needs no torch."),
    "bench": ("bench", "Measure a bundle: against PyTorch, other bundles and the hardware's limits."),
    "inspect": ("inspect", "Show what a bundle is and verify every file's hash."),
    "sample-data": ("sample_data", "Draw pictures to search, and plume-tiny's evaluation set."),
    "random-checkpoint": ("build", "Write a checkpoint of random weights in the published layout."),
    "doctor": ("doctor", "Tell what this machine has and lacks, each line with the fix."),
}


class _Group(click.Group):
    """Imports a command when it is run, and ends the program: failure.py says how."""

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
        except BrokenPipeError as error:  # which click would end with 1
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
    "Exit codes: 0 done; 1 failed; 2 usage: an option or a value of one that is wrong whatever the files hold; "
    "128 and its number: stopped by a signal."
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, params=switch_options(), epilog=_EXIT_CODES)
@click.version_option(package_name="plume-export", prog_name="plume-export")
def main() -> None:
    """Export, compile and run PLUME, a universal multimodal embedding model."""
    stop_on_signals()
