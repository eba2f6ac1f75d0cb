"""The order in which contestants take turns."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Name = TypeVar("Name")
# Between two turns: threads that still look for work after one would slow down the next.
PAUSE_S = 0.05


def rotated_rounds(names: Sequence[Name], rounds: int) -> Iterator[list[Name]]:
    """Yield everyone once a round, each round starting one further: A B C, B C A, C A B, ..."""
    for number in range(rounds):
        first = number % len(names)
        yield [*names[first:], *names[:first]]
