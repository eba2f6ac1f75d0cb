"""--no-verify, of every command that opens a bundle to work with it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

_OPTION = click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files; names and sizes are still checked.")


def verify_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --no-verify; the function gets it as `verify_hashes`."""

    @wraps(function)
    def with_verify_hashes(*arguments: Any, no_verify: bool, **options: Any) -> Any:
        return function(*arguments, verify_hashes=not no_verify, **options)

    return _OPTION(with_verify_hashes)
