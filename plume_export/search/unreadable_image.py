"""Reasons why an image cannot be read, in cacheable form: with the versions of the decoders, without the file's name."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..inputs import load_image

# Packages that decode images. If the version of one changes, failed files are tried again.
_PACKAGES = ("pillow", "pillow-heif", "pillow-avif-plugin", "pillow-jxl-plugin")
# A placeholder that no file name contains.
_NAME = "\0"


def reader_of_pictures() -> str:
    """Return this package's version and those of the installed packages that decode images, as one cache key."""
    return " ".join((__version__, *(f"{package} {_version(package)}" for package in _PACKAGES)))


def is_unreadable(file: Path) -> bool:
    """Return True if the file's content cannot be decoded, False if memory, the disk or the bundle caused the failure."""
    try:
        load_image(file)
    except InputError as error:
        cause = error.__cause__
        return not isinstance(cause, MemoryError) and not (isinstance(cause, OSError) and cause.errno is not None)
    return False


def without_name(reason: str, file: Path) -> str:
    """Return the reason with a placeholder for the file's name, so that it can be reused for files with the same content."""
    return reason.replace(str(file), _NAME)


def with_name(reason: str, file: Path) -> str:
    """Return the reason with the placeholder replaced by the file's name."""
    return reason.replace(_NAME, str(file))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
