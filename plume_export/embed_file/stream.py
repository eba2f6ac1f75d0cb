"""Embeddings written as they come: to a file that a stopped run can go on with, or as JSON lines."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO

import msgspec

from .. import __version__
from ..errors import InputError
from ..preprocess.notice import Notify
from ..progress import Advance
from ..runtime.embedder import Embedder
from .embed import OnError, Skipped, embed_windows
from .partial import PartialRun, RunSettings
from .sources import Inputs
from .write import Block, write_embeddings, write_jsonl


def embed_to_file(
    embedder: Embedder,
    inputs: Inputs,
    output: Path,
    *,
    batch_size: int | None,
    on_error: OnError,
    is_resumed: bool,
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> list[Skipped]:
    """Write .npy, .jsonl or .parquet, all or nothing; return which inputs were skipped, and why.

    Rows are collected beside `output` (partial.py). A run that goes on writes the file that it would have written at once: it
    starts with the first window that is not whole. Raises PlumeExportError if what is there is of another run.
    """
    settings = RunSettings(
        version=__version__,
        bundle=embedder.bundle.sha256,
        mode=embedder.mode,
        steps=embedder.steps,
        batch_size=embedder.checked_batch_size(batch_size),
        allow_control_tokens=embedder.allow_control_tokens,
        **asdict(embedder.media_options),
    )
    with PartialRun(output, settings, embedder.dimension, is_resumed=is_resumed) as partial:
        partial.check_skipped(on_error)
        remaining = partial.remaining(inputs.sources)
        advance(partial.inputs)
        try:
            windows = embed_windows(
                embedder, remaining, batch_size=batch_size, on_error=on_error, advance=advance, notify=notify
            )
            with closing(windows):
                for window in windows:
                    partial.append(window)
        except InputError as error:
            if partial.inputs > 0:
                error.add_fix(f"--resume goes on after the {partial.inputs} inputs that are done")
            raise
        write_embeddings(partial.blocks(), partial.inputs, embedder.dimension, output, msgspec.to_builtins(settings))
        partial.remove()
        return partial.skipped


def embed_to_lines(
    embedder: Embedder,
    inputs: Inputs,
    file: IO[bytes],
    *,
    batch_size: int | None,
    on_error: OnError,
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> list[Skipped]:
    """Write one {"id": ..., "embedding": [...]} a line as windows are done; return which inputs were skipped, and why."""
    skipped: list[Skipped] = []
    windows = embed_windows(embedder, inputs.sources, batch_size=batch_size, on_error=on_error, advance=advance, notify=notify)
    with closing(windows):
        for window in windows:
            write_jsonl([Block(window.ids, window.embeddings)], file)
            file.flush()
            skipped += window.skipped_inputs
    return skipped
