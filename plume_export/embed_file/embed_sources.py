"""Embed sources window by window."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ..errors import InputError
from ..inputs.json_lines import Source
from ..inputs.notice import Notify
from ..progress import Advance
from ..runtime import windows as embedded_windows
from ..runtime.embedder import Embedder
from ..stages import FloatArray

OnError = Literal["fail", "skip"]


class Skipped(NamedTuple):
    """An input that was skipped, and the reason. Ids need not be unique. `line` is the line number, if it came from JSON
    lines.
    """

    id: str
    reason: str
    line: int | None = None


@dataclass
class EmbedResult:
    """Embeddings in the order of the inputs. A skipped input has a row of NaN; `skipped` maps its row to the reason.

    `is_whole` is False if the inputs ended before the window was full.
    """

    sources: list[Source]
    embeddings: FloatArray  # [inputs, hidden]
    skipped: dict[int, str] = field(default_factory=dict)
    is_whole: bool = True

    @property
    def ids(self) -> list[str]:
        return [source.id for source in self.sources]

    @property
    def skipped_inputs(self) -> list[Skipped]:
        found = [(self.sources[row], reason) for row, reason in self.skipped.items()]
        return [Skipped(source.id, reason, source.line) for source, reason in found]


def embed_sources(
    embedder: Embedder,
    sources: Iterable[Source],
    *,
    batch_size: int | None,
    on_error: OnError,
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> EmbedResult:
    """Embed all sources. With `on_error="skip"` an invalid input is recorded and skipped; with "fail" it raises InputError.

    `notify` receives the notices of every input that is embedded.
    """
    result = EmbedResult([], np.empty((0, embedder.dimension), np.float32))
    parts = [result.embeddings]
    size = embedder.checked_batch_size(batch_size)
    windows = embed_windows(embedder, sources, batch_size=size, on_error=on_error, advance=advance, notify=notify)
    for window in windows:
        result.skipped |= {len(result.sources) + row: reason for row, reason in window.skipped.items()}
        result.sources += window.sources
        parts.append(window.embeddings)
    result.embeddings = np.concatenate(parts)
    return result


def embed_windows(
    embedder: Embedder,
    sources: Iterable[Source],
    *,
    batch_size: int,
    on_error: OnError,
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> Generator[EmbedResult, None, None]:
    """Yield the embeddings of consecutive sources as they are computed. An input's batch depends only on its window."""
    windows = embedded_windows.embed_windows(
        embedder,
        sources,
        read=lambda source: source.read(),
        identify=_identify,
        batch_size=batch_size,
        is_skipping=on_error == "skip",
        advance=advance,
        notify=notify,
    )
    with closing(windows):
        for window in windows:
            reasons = {row: error.command_line_text for row, error in sorted(window.errors.items())}
            yield EmbedResult(window.items, window.embeddings, reasons, window.is_whole)


def _identify(error: InputError, source: Source) -> None:
    error.input = source.id
    error.add_place(f"input {source.id!r}")
    error.add_fix("--on-error skip skips this input")
