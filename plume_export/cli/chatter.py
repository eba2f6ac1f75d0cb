"""Hide log messages and warnings of other packages unless --verbose is given, and print this package's warnings as messages."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .messages import has_bars, warn
from .switches import switches

_PACKAGE = Path(__file__).resolve().parents[1]
# Environment variables that libraries read when they are imported. Child processes inherit them.
_QUIET_LIBRARIES = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_VERBOSITY": "error", "TORCH_CPP_LOG_LEVEL": "ERROR"}
_NO_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hide other packages' warnings and logs below ERROR unless --verbose is given. Print this package's warnings as messages.

    Progress bars of other packages are hidden where this package shows none.
    """
    is_verbose, disabled = switches().is_verbose, logging.root.manager.disable
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if Path(filename).is_relative_to(_PACKAGE):
                warn(str(message))
            elif is_verbose:
                show_others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        if not is_verbose:
            logging.disable(logging.WARNING)
            for name, value in _QUIET_LIBRARIES.items():
                os.environ.setdefault(name, value)
        if not has_bars():
            for name, value in _NO_BARS.items():
                os.environ.setdefault(name, value)
        try:
            yield
        finally:
            logging.disable(disabled)
