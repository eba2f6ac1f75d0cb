"""Summary of a run, given at its end."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import PlumeExportError
from ..inputs.json_lines import Source
from .embed_sources import Skipped

# Maximum number of inputs or ids named in one line.
_NAMED = 10


@dataclass(frozen=True)
class RunSummary:
    """The number of embedded inputs, the skipped inputs with their reasons, repeated ids, and the number of blank lines."""

    embedded: int
    skipped: list[Skipped]
    repeated_ids: list[str]
    blank_lines: int = 0

    @property
    def has_nothing(self) -> bool:
        """Whether every input was skipped. No file is then written."""
        return self.embedded == 0 and bool(self.skipped)

    def lines(self) -> list[str]:
        """Return "998 embedded, 2 skipped (lines 7, 31), 1 blank line ignored", and a line about repeated ids."""
        counts = [f"{self.embedded} embedded"]
        if self.skipped:
            counts.append(f"{len(self.skipped)} skipped ({self._skipped_names()})")
        if self.blank_lines:
            counts.append(f"{self.blank_lines} blank line{'s' if self.blank_lines > 1 else ''} ignored")
        lines = [", ".join(counts)]
        if self.repeated_ids:
            count = len(self.repeated_ids)
            occur = "1 id occurs" if count == 1 else f"{count} ids occur"
            lines.append(f"{occur} more than once: {_cut(self.repeated_ids)}")
        return lines

    def check(self) -> None:
        """Raise PlumeExportError if every input was skipped."""
        if self.has_nothing:
            raise PlumeExportError(
                f"All {len(self.skipped)} inputs were skipped, so no file is written.",
                fix=f"repair the inputs. The first one was skipped because: {self.skipped[0].reason.splitlines()[0]}",
            )

    def _skipped_names(self) -> str:
        numbers = [str(skipped.line) for skipped in self.skipped if skipped.line is not None]
        if len(numbers) < len(self.skipped):
            return _cut([skipped.id for skipped in self.skipped])
        return f"line{'s' if len(numbers) > 1 else ''} {_cut(numbers)}"


class RepeatedIds:
    """Finds ids that occur more than once. It stores a hash for every id that a user gave, about 70 bytes."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._repeated: dict[str, None] = {}

    def watched(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the sources and record their ids, except those of lines without an id, which get their line number as id."""
        for source in sources:
            if source.line is None or source.id != f"line {source.line}":
                self._add(source.id)
            yield source

    @property
    def names(self) -> list[str]:
        return list(self._repeated)

    def _add(self, name: str) -> None:
        number = hash(name)
        if number in self._hashes:
            self._repeated[name] = None
        self._hashes.add(number)


def _cut(names: Sequence[str]) -> str:
    """Join the first names on one line."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
