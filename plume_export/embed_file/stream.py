"""Write embeddings as they are computed: to a file, as a run that can be resumed, or as JSON lines."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO

import msgspec

from .. import __version__
from ..errors import InputError
from ..inputs.json_lines import Inputs
from ..inputs.notice import Notify
from ..progress import Advance
from ..runtime.embedder import Embedder
from ..runtime.output_rows import OutputDtype, check_output_dtype
from .embed_sources import OnError, Skipped, embed_windows
from .embedding_file import Block, write_embeddings, write_jsonl
from .partial import PartialRun, RunSettings
from .summary import RepeatedIds, RunSummary


def embed_to_file(
    embedder: Embedder,
    inputs: Inputs,
    output: Path,
    *,
    batch_size: int | None,
    on_error: OnError,
    is_resumed: bool,
    is_restarted: bool = False,
    output_dtype: OutputDtype = "float32",
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> RunSummary:
    """Write .npy, .jsonl or .parquet, all or nothing. No file is written if every input was skipped.

    Rows are collected beside `output` (partial.py), always in float32. A resumed run writes the same file as an uninterrupted
    run: it starts with the first window that is not whole. Raises PlumeExportError if an interrupted run has other settings, or
    exists while `is_resumed` and `is_restarted` are both False.
    """
    check_output_dtype(output_dtype, is_skipping=on_error == "skip" and output.suffix == ".npy")
    settings = RunSettings(
        version=__version__,
        bundle=embedder.bundle.cache_key,
        mode=embedder.mode,
        steps=embedder.steps,
        batch_size=embedder.checked_batch_size(batch_size),
        allow_control_tokens=embedder.allow_control_tokens,
        **asdict(embedder.media_options),
    )
    ids = RepeatedIds()
    with PartialRun(output, settings, embedder.dimension, is_resumed=is_resumed, is_restarted=is_restarted) as partial:
        partial.check_skipped(on_error)
        remaining = partial.remaining(ids.watched(inputs.sources))
        advance(partial.inputs)
        try:
            windows = embed_windows(
                embedder, remaining, batch_size=settings.batch_size, on_error=on_error, advance=advance, notify=notify
            )
            with closing(windows):
                for window in windows:
                    partial.append(window)
        except InputError as error:
            if partial.inputs > 0:
                error.add_fix(f"--resume continues after the {partial.inputs} finished inputs")
            raise
        summary = RunSummary(partial.inputs - len(partial.skipped), partial.skipped, ids.names, inputs.blank_lines.count)
        if not summary.has_nothing:
            facts = msgspec.to_builtins(settings)
            write_embeddings(partial.blocks(), partial.inputs, embedder.dimension, output, facts, dtype=output_dtype)
        partial.remove()
        return summary


def embed_to_lines(
    embedder: Embedder,
    inputs: Inputs,
    file: IO[bytes],
    *,
    batch_size: int | None,
    on_error: OnError,
    output_dtype: OutputDtype = "float32",
    advance: Advance = lambda _: None,
    notify: Notify = lambda _: None,
) -> RunSummary:
    """Write one {"id": ..., "embedding": [...]} per line as windows are computed."""
    check_output_dtype(output_dtype, is_skipping=False)
    size = embedder.checked_batch_size(batch_size)
    ids, skipped, count = RepeatedIds(), list[Skipped](), 0
    sources = ids.watched(inputs.sources)
    windows = embed_windows(embedder, sources, batch_size=size, on_error=on_error, advance=advance, notify=notify)
    with closing(windows):
        for window in windows:
            write_jsonl([Block(window.ids, window.embeddings)], file, output_dtype)
            file.flush()
            skipped += window.skipped_inputs
            count += len(window.sources)
    return RunSummary(count - len(skipped), skipped, ids.names, inputs.blank_lines.count)
