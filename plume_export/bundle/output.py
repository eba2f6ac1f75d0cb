"""Where a bundle is written: beside its place first, and in it once it is whole."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import PlumeExportError
from .manifest import MANIFEST

_WRITE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EIO,
}  # fmt: skip


@contextmanager
def new_bundle(output: Path) -> Iterator[Path]:
    """Yield an empty directory beside `output`; on success it takes the place of `output`, on an error it vanishes.

    An existing bundle at `output` is replaced only at the end; anything else that stands there is refused at once.
    """
    check_output(output)
    with scratch_directory(output) as partial:
        yield partial
        partial.chmod(0o755)
        _replace(partial, output)


@contextmanager
def scratch_directory(output: Path) -> Iterator[Path]:
    """Yield an empty directory beside `output` that vanishes at the end; errors of writing become PlumeExportErrors."""
    with _as_write_error(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_output(output: Path) -> None:
    """Raise unless `output` is free, an empty directory or a bundle that may be replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise PlumeExportError(f"{output} exists and is not a bundle, so it is not replaced.", fix="choose another --output")


def _replace(partial: Path, output: Path) -> None:
    """Rename; a bundle that stands at `output` is moved aside first, so that one of the two is always whole."""
    aside = partial.with_name(partial.name + ".old")
    if output.exists():
        output.rename(aside)
    try:
        partial.rename(output)
    except OSError:
        with suppress(OSError):
            aside.rename(output)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _as_write_error(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _WRITE_ERRORS:
            raise
        reason = error.strerror or str(error)
        raise PlumeExportError(
            f"{output} can not be written: {reason}.", fix="free space or choose another --output; nothing was left behind"
        ) from error
