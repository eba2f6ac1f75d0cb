"""Check output paths and what would be replaced. A bundle is written beside its final path and renamed when it is complete."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..atomic import HIDDEN_NAME_BYTES, as_write_error, check_not_locked, put_in_place, scratch_directory
from ..errors import BundleError, OptionError, PlumeExportError
from ..progress import Report
from ..whole_file import check_replaceable
from .bundle import is_bundle, open_bundle, read_manifest
from .manifest import MANIFEST, Manifest

_FIX = "choose another --output"
_NAMED_FILES = 3


@contextmanager
def new_bundle(output: Path, report: Report = lambda _: None) -> Iterator[Path]:
    """Yield an empty directory beside `output`. On success it replaces `output`; on an error it is deleted.

    Raises the errors of `check_output`, at the start and again at the end. A replaced bundle is reported.
    """
    with staged_bundle(output, report) as staged:
        staged.mkdir()
        yield staged


@contextmanager
def staged_bundle(output: Path, report: Report = lambda _: None) -> Iterator[Path]:
    """Yield a free path beside `output`. The directory created there replaces `output`, as in `new_bundle`."""
    check_output(output)
    with scratch_directory(output, report, is_whole=_is_whole) as scratch:
        replaced = _replaced(output)
        if replaced is not None:
            report(f"replacing {output}: {replaced.precision} for {replaced.backend}, built from {replaced.checkpoint.name}")
        yield scratch / output.name
        # `_replaced` again, because files may have been added to the old bundle in the meantime.
        put_in_place(scratch / output.name, output, scratch, partial(_replaced, output))


@contextmanager
def new_directory(output: Path, report: Report = lambda _: None) -> Iterator[Path]:
    """Like `new_bundle`, for an output that replaces nothing: it must not exist or be an empty directory."""
    check_new_directory(output)
    with scratch_directory(output, report) as scratch:
        _check_free(output)  # the previous output of a killed build may have been restored
        (scratch / output.name).mkdir()
        yield scratch / output.name
        # `_check_free` again, because another process may have created the output in the meantime.
        put_in_place(scratch / output.name, output, scratch, partial(_check_free, output))


def check_output(output: Path, inputs: Sequence[Path] = ()) -> None:
    """Raise PlumeExportError unless a bundle can be written to `output`, before any work is done.

    `output` must not exist, or be an empty directory or a bundle without other files. It must be outside every bundle and every
    input, must not contain an input, and must not be in use by another writer.
    """
    with as_write_error(output):
        _check_place(output)
        check_is_no_input(output, inputs)
        _replaced(output)
        check_not_locked(output)


def check_new_directory(output: Path) -> None:
    """Raise PlumeExportError unless a directory can be created at `output`. Unlike `check_output`, nothing may be replaced."""
    with as_write_error(output):
        _check_place(output)
        _check_free(output)
        check_not_locked(output)


def check_writable(output: Path, inputs: Sequence[Path] = (), *, suffixes: Sequence[str] = ()) -> None:
    """Check, before any work is done, that a file can be written to `output`. Raises PlumeExportError if not.

    The file must end in one of `suffixes`, if any are given, and must not be an input or inside an input directory. It must
    also be outside every bundle, because a bundle contains only its own files.
    """
    check_replaceable(output)
    if suffixes and output.suffix not in suffixes:
        one_of = "one of " if len(suffixes) > 1 else ""
        raise OptionError(
            f"The output {output} has the suffix {output.suffix!r}."
            if output.suffix
            else f"The output {output} has no suffix.",
            fix=f"use a name that ends in {one_of}{', '.join(suffixes)}",
        )
    with as_write_error(output):
        if not output.parent.is_dir() or not os.access(output.parent, os.W_OK) or output.is_dir():
            raise PlumeExportError(f"{output} cannot be written.", fix="choose a file in an existing, writable directory")
        if len(os.fsencode(output.name)) > os.pathconf(output.parent, "PC_NAME_MAX") - HIDDEN_NAME_BYTES:
            raise PlumeExportError(f"The name of the output {output} is too long.", fix="choose a shorter --output")
        check_outside_bundles(output)
        check_is_no_input(output, inputs)


def check_outside_bundles(output: Path) -> None:
    """Raise PlumeExportError if a file or directory is inside a bundle, which contains only what its manifest lists."""
    for parent in output.resolve().parents:
        if is_bundle(parent):
            raise PlumeExportError(f"The output {output} is inside the bundle {parent}.", fix="choose an --output outside it")


def check_is_no_input(output: Path, inputs: Sequence[Path]) -> None:
    """Raise PlumeExportError if an output is an input, is inside one, or contains one."""
    for given in inputs:
        if not given.exists():
            continue
        if output.exists() and output.samefile(given):
            raise PlumeExportError(f"The output {output} is also the input, which would be lost.", fix=_FIX)
        if _is_within(output, given):
            raise PlumeExportError(f"The output {output} is inside its input {given}.", fix="choose an --output outside it")
        if _is_within(given, output):
            raise PlumeExportError(f"The input {given} is inside the output {output} and would be lost.", fix=_FIX)


def _check_place(output: Path) -> None:
    _check_name(output)
    _check_parent(output)
    if output.is_symlink():
        target = os.readlink(output)
        raise PlumeExportError(
            f"The output {output} is a symbolic link to {target}; neither is replaced.",
            fix=f"pass {output.resolve()}, or remove the link",
        )
    if output.exists() and not output.is_dir():
        raise PlumeExportError(f"The output {output} is a file; expected a directory or a free path.", fix=_FIX)
    if output.is_mount():
        raise PlumeExportError(
            f"The output {output} is a mount point, which cannot be replaced.", fix=f"pass {output / 'NAME'}"
        )
    if output.exists() and not os.access(output, os.R_OK | os.W_OK | os.X_OK):
        raise PlumeExportError(f"The output {output} cannot be replaced: permission denied.", fix=_FIX)
    check_outside_bundles(output)


def _check_name(output: Path) -> None:
    fix = "pass a directory to create, such as --output bundles/NAME"
    if "\0" in str(output):
        raise PlumeExportError(f"The output {str(output)!r} contains a NUL character.", fix=fix)
    if output.name == "..":
        raise PlumeExportError(f"The output {output} ends in '..'.", fix=fix)
    at_most = os.pathconf(_nearest(output.absolute().parent), "PC_NAME_MAX") - HIDDEN_NAME_BYTES
    if len(os.fsencode(output.name)) > at_most:
        raise PlumeExportError(
            f"The name of the output {output} has {len(os.fsencode(output.name))} bytes; the file system allows {at_most}.",
            fix="choose a shorter --output",
        )
    if _is_within(Path.cwd(), output):
        raise PlumeExportError(f"The output {output} is the current directory or contains it, so it is not replaced.", fix=fix)


def _check_parent(output: Path) -> None:
    nearest = _nearest(output.absolute().parent)
    if not nearest.is_dir():
        raise PlumeExportError(f"The output {output} cannot be created: {nearest} is a file.", fix=_FIX)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PlumeExportError(f"The output {output} cannot be created: {nearest} is not writable.", fix=_FIX)


def _nearest(path: Path) -> Path:
    """Return the path, or its nearest parent directory that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _is_within(path: Path, directory: Path) -> bool:
    """Return True if a path is a directory or below it, even if the two are given through different links."""
    if not directory.exists():
        return False
    resolved = path.resolve()
    return any(above.exists() and above.samefile(directory) for above in (resolved, *resolved.parents))


def _is_whole(output: Path) -> bool:
    try:
        open_bundle(output, verify_hashes=False)
    except BundleError:
        return False
    return True


def _replaced(output: Path, aside: Path | None = None) -> Manifest | None:
    """Return the manifest of the bundle at `output`; None if nothing is there. Raises if anything else is there.

    `aside` is the path to which the bundle was moved temporarily.
    """
    directory = aside or output
    if not _is_taken(directory):
        return None
    names = sorted(os.listdir(directory))
    if MANIFEST not in names:
        raise PlumeExportError(
            f"{output} exists and is not a bundle, so it is not replaced. It contains {_listed(names)}.", fix=_FIX
        )
    try:
        manifest = read_manifest(directory)
    except BundleError as error:
        others = [name for name in names if name != MANIFEST]
        raise PlumeExportError(
            f"{output} exists and is not a bundle of this version, so it is not replaced: {error.message} "
            f"Other files: {_listed(others)}.",
            fix=_FIX,
        ) from None
    foreign = _foreign(directory, manifest)
    if foreign:
        raise PlumeExportError(
            f"{output} is not replaced: it contains files that its manifest does not list: {_listed(foreign)}.",
            fix=f"move them elsewhere, or {_FIX}",
        )
    return manifest


def _check_free(output: Path, aside: Path | None = None) -> None:
    if _is_taken(aside or output):
        raise PlumeExportError(f"{output} already exists.", fix="choose another directory, or delete this one")


def _is_taken(output: Path) -> bool:
    return output.exists() and any(output.iterdir())


def _foreign(directory: Path, manifest: Manifest) -> list[str]:
    """Return the files and directories that the manifest does not list, except parent directories of listed files."""
    files = {*manifest.files, MANIFEST}
    parents = {parent.as_posix() for name in files for parent in Path(name).parents}
    foreign = []
    for root, directories, names in os.walk(directory):
        for name in sorted(directories + names):
            path = Path(root, name)
            relative = path.relative_to(directory).as_posix()
            is_plain = not path.is_symlink() and (path.is_file() or path.is_dir())
            if not is_plain or relative not in (parents if path.is_dir() else files):
                foreign.append(relative)
        directories[:] = [name for name in directories if Path(root, name).relative_to(directory).as_posix() in parents]
    return foreign


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_FILES
    return (", ".join(names[:_NAMED_FILES]) or "nothing") + (f" and {more} more" if more > 0 else "")
