"""How long work tells of its progress, whoever shows it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

# Takes how many more are done.
Advance: TypeAlias = Callable[[int], None]
# Opens a bar of so many things of a name; what it yields advances the bar.
OpenProgress: TypeAlias = Callable[[int, str], AbstractContextManager[Advance]]
