"""Why a content is no picture, as it is remembered: by the reader that failed, without the file's name."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..inputs import load_image

# What decodes pictures: with another version of one of them, a failure is tried again.
_PACKAGES = ("pillow", "pillow-heif", "pillow-avif-plugin", "pillow-jxl-plugin")
# No file's name has it.
_NAME = "\0"


def reader_of_pictures() -> str:
    """Name this version and the packages that decode pictures, as they are installed."""
    return " ".join((__version__, *(f"{package} {_version(package)}" for package in _PACKAGES)))


def is_unreadable(file: Path) -> bool:
    """Whether the content of a file that could not be embedded is at fault: not memory, a disk or the bundle."""
    try:
        load_image(file)
    except InputError as error:
        cause = error.__cause__
        return not isinstance(cause, MemoryError) and not (isinstance(cause, OSError) and cause.errno is not None)
    return False


def without_name(reason: str, file: Path) -> str:
    """Return the reason for any file of this content."""
    return reason.replace(str(file), _NAME)


def with_name(reason: str, file: Path) -> str:
    """Return the reason for one file."""
    return reason.replace(_NAME, str(file))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
