"""Errors that a user can solve, with the fix in the message."""

import re

# Matches a whole shell command, which Python messages leave unchanged, or a flag outside of a command.
_COMMAND_OR_FLAG = re.compile(r"`[^`]*`|\b(?:plume-export|pip3?|python3?|apt|ffmpeg) [^,;)\n]*|(?<![^\s(\[])--[a-z][a-z-]*")


class PlumeExportError(Exception):
    """A problem that the user can solve. The command line prints it as one message and exits with code 1.

    `message` names the thing, what was received and what was expected. `fix` is the command, keyword argument or step that
    solves it. It is passed with flags, which stay in `command_line_fix`: `--batch-size` becomes `batch_size`.
    """

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        # Exception.__init__ is not called: `args` remain the arguments of the call, so that every subclass can be pickled.
        self.message, self.command_line_fix = message, fix

    def __str__(self) -> str:
        return _text(self.message, self.fix)

    @property
    def fix(self) -> str | None:
        """The fix, with keyword arguments instead of flags."""
        return None if self.command_line_fix is None else keywords_from_flags(self.command_line_fix)

    @property
    def command_line_text(self) -> str:
        """The error's text for the command line, with flags."""
        return _text(self.message, self.command_line_fix)

    def add_place(self, place: str) -> None:
        """Prefix the message with the place of the error, such as `in.jsonl line 3`."""
        self.message = f"{place}: {self.message}"

    def add_fix(self, fix: str) -> None:
        """Add another fix, written with flags."""
        earlier = self.command_line_fix
        self.command_line_fix = fix if earlier is None else f"{earlier}; {fix}"


class OptionError(PlumeExportError):
    """An option's value, or a combination of options, that is always wrong. The command line exits with code 2."""


class CheckpointError(PlumeExportError):
    """A checkpoint that is missing, corrupt or not PLUME's."""


class BundleError(PlumeExportError):
    """A bundle that is missing, altered, of another kind or of a newer schema."""


class InputError(PlumeExportError):
    """One input (text, image, video) that cannot be embedded. Other inputs of the same run are not affected.

    `index` is its position in the caller's inputs, from 0, and `input` its id, if they are known.
    """

    index: int | None = None
    input: str | None = None


class MissingExtraError(PlumeExportError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"The Python package {package!r} is not installed.", fix=f"pip install 'plume-export[{extra}]'")


class MissingDecoderError(MissingExtraError, InputError):
    """One input cannot be read without a package that is not installed. Other inputs of the same run are not affected."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        fix = f"pip install 'plume-export[{extra}]'"
        PlumeExportError.__init__(self, f"{what}, which needs the Python package {package!r}.", fix=fix)


def keywords_from_flags(text: str) -> str:
    """Return `text` with flags replaced by the keyword arguments of the same names. Whole commands are unchanged."""

    def keyword(match: re.Match[str]) -> str:
        found = match.group()
        return found.removeprefix("--").replace("-", "_") if found.startswith("--") else found

    return _COMMAND_OR_FLAG.sub(keyword, text)


def _text(message: str, fix: str | None) -> str:
    return message if fix is None else f"{message}\n  fix: {fix}"
