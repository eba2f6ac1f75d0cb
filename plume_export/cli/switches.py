"""The switches that every command takes (--json, -q, -v, --debug) and the Answer that it returns."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any

import click
import msgspec

from ..errors import OptionError
from .streams import printing

_META_KEY = "plume_export.switches"


@dataclass
class Switches:
    """Output switches of a command. Quiet hides progress and notes; errors and warnings stay."""

    as_json: bool = False
    is_quiet: bool = False
    is_verbose: bool = False
    is_debug: bool = False
    started_s: float = field(default_factory=time.monotonic)

    @property
    def has_notes(self) -> bool:
        """Whether notes are printed. With --json, only errors and warnings are expected on stderr."""
        return self.is_verbose or not (self.is_quiet or self.as_json)


@dataclass(frozen=True)
class Answer:
    """Result of a command: `value` is its JSON document, `show` prints it as text."""

    value: Any
    show: Callable[[], None]
    exit_code: int = 0


def switches() -> Switches:
    """Return the switches of the running command, or the defaults if no command is running."""
    context = click.get_current_context(silent=True)
    if context is None:
        return Switches()
    found: Switches = context.meta.setdefault(_META_KEY, Switches())
    return found


def _switch_on(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    found = context.meta.setdefault(_META_KEY, Switches())
    if value:
        assert parameter.name is not None
        setattr(found, parameter.name, True)
    if found.is_quiet and found.is_verbose:
        raise click.UsageError("--quiet and --verbose exclude each other", context)


def switch_options(*, is_hidden: bool = False) -> list[click.Option]:
    """Return the switches as options. They are parsed before the other options, whose callbacks may print."""
    option = partial(click.Option, is_flag=True, is_eager=True, expose_value=False, callback=_switch_on, hidden=is_hidden)
    return [
        option(["--json", "as_json"], help="Print the result as JSON on stdout and errors as JSON on stderr."),
        option(["-q", "--quiet", "is_quiet"], help="Hide progress and notes."),
        option(["-v", "--verbose", "is_verbose"], help="Show more progress, and log messages of other packages."),
        option(["--debug", "is_debug"], help="Show the traceback of an error."),
    ]


class Command(click.Command):
    """A command that takes the switches and returns an Answer, or None if it has already printed its output."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.extend(switch_options())

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        with _as_usage(context):
            return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        from .chatter import without_chatter

        with without_chatter(), _as_usage(context):
            answer = super().invoke(context)
        if not isinstance(answer, Answer):
            assert answer is None
            return
        with printing():
            if switches().as_json:
                click.echo(document_from_value(answer.value))
            else:
                answer.show()
        context.exit(answer.exit_code)


command = partial(click.command, cls=Command)


@contextmanager
def _as_usage(context: click.Context) -> Iterator[None]:
    """Convert an OptionError of the package into click's usage error (exit code 2)."""
    try:
        yield
    except OptionError as error:
        if switches().is_debug:
            raise
        raise click.UsageError(error.command_line_text, context) from error


def document_from_value(value: Any) -> bytes:
    """Encode as one line of JSON in UTF-8. Paths become strings, in which bytes that are not UTF-8 become surrogates."""
    try:
        return msgspec.json.encode(value, enc_hook=_text_from_path)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value, enc_hook=_text_from_path)).encode()


def _text_from_path(value: Any) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"{type(value)} cannot be encoded as JSON")
