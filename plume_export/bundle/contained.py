"""Checked file names in a bundle. A crafted bundle may have any name in its manifest, its graphs and its self-test."""

import os
import re
import stat
from pathlib import Path

from ..errors import BundleError

_FIX = "copy the bundle again, or build it again"
_UNTRUSTED = "do not use this bundle; build it again, or copy it from where it was built"
_DRIVE = re.compile(r"[A-Za-z]:")


def contained_file(directory: Path, name: str) -> Path:
    """Return the path of a regular file of a bundle.

    Raises BundleError if the name is not a plain relative path, if the file is missing or not a regular file, or if a symbolic
    link leads outside the bundle.
    """
    check_plain_name(directory, name)
    file = directory / name
    try:
        mode = file.stat().st_mode
        is_inside = file.resolve().is_relative_to(directory.resolve())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"The file {name} is missing in the bundle {directory}.", fix=_FIX) from None
    except (OSError, RuntimeError) as error:  # pathlib raises RuntimeError for circular links
        raise BundleError(f"{file} cannot be read: {error}.", fix=_FIX) from None
    if not is_inside:
        raise BundleError(
            f"{file} is a symbolic link to {file.resolve()}, which is outside the bundle.",
            fix=f"copy the bundle with the files that its links point to: cp -rL {directory} COPY",
        )
    if not stat.S_ISREG(mode):
        raise BundleError(f"{file} is not a regular file.", fix=_UNTRUSTED)
    return file


def check_plain_name(directory: Path, name: str) -> None:
    """Raise BundleError unless `name` is a relative path with slashes that stays inside the bundle on every system."""
    if not is_plain_name(name):
        raise BundleError(
            f"The bundle {directory} refers to the file {name!r}; expected a plain path inside the bundle.", fix=_UNTRUSTED
        )


def is_plain_name(name: str) -> bool:
    """Return True if a name is a relative path with slashes that stays in its directory on every system.

    Links are not resolved.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    if "\0" in name or "\\" in name or _DRIVE.match(name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))
