"""What is fuzzed: a reader, files that it takes, and changes to them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

# File name below the surface's directory -> content. None: the file is taken away.
Files: TypeAlias = dict[str, bytes | None]
# Choices that a strategy makes come from bytes; a case that needs more than the first size gets the second.
_CHOICE_BYTES = (4096, 1 << 18)


@dataclass(frozen=True)
class Surface:
    """One reader of a user's files.

    `write` fills a directory with files that the reader accepts. `cases` draws changes to that directory. `read` is the
    reader, and asserts what must hold of an accepted result. `weight` is its part of all cases: cheap ones get more.
    """

    name: str
    weight: int
    write: Callable[[Path], None]
    cases: Callable[[Path], SearchStrategy[Files]]
    read: Callable[[Path], None]


class Cases:
    """The cases of a surface by number. Case n is the same for one seed, whatever was drawn before."""

    def __init__(self, surface: Surface, directory: Path, seed: int) -> None:
        self._prefix = f"{surface.name} {seed}"
        self._drawn: list[Files] = []

        @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(surface.cases(directory))
        def draw(files: Files) -> None:
            self._drawn.append(files)

        self._draw = draw.hypothesis.fuzz_one_input

    def __getitem__(self, number: int) -> Files:
        self._drawn.clear()
        for size in _CHOICE_BYTES:
            self._draw(Random(f"{self._prefix} {number}").randbytes(size))
            if self._drawn:
                return self._drawn[0]
        raise AssertionError(f"{self._prefix}: case {number} needs more than {size} bytes of choices")
