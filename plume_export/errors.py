"""What a user can get wrong, with the fix in the message."""


class PlumeExportError(Exception):
    """A problem that the user can solve. The command line prints it as one message and exits with code 1.

    The message names the thing, what was received and what was expected; `fix` is the command, flag or step that solves it.
    """

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message}\n  fix: {fix}")
        self.message, self.fix = message, fix


class CheckpointError(PlumeExportError):
    """A checkpoint that is missing, damaged or not PLUME's."""


class BundleError(PlumeExportError):
    """A bundle that is missing, altered, of another kind or of a newer schema."""


class InputError(PlumeExportError):
    """One input (text, image, video) that can not be embedded; other inputs of the same run are unaffected."""


class MissingExtraError(PlumeExportError):
    """A command needs a package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"The Python package {package!r} is not installed.", fix=f"pip install 'plume-export[{extra}]'")
