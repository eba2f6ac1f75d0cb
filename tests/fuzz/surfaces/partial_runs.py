"""What a stopped run left: its journal and its rows. A run that goes on must give rows for all inputs."""

import json
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export import __version__
from plume_export.embed_file.embed_sources import EmbedResult
from plume_export.embed_file.partial import PartialRun, RunSettings, stopped_run
from plume_export.inputs import Item
from plume_export.inputs.json_lines import Source

from ..mutation import mutated, mutated_json
from ..surface import Files, Surface

_OUTPUT = "out.npy"
_ROWS, _JOURNAL = f".{_OUTPUT}.partial", f".{_OUTPUT}.partial.jsonl"
_DIMENSION, _WINDOWS, _WINDOW_INPUTS = 4, 3, 2
_SOURCES = [
    Source(f"line {number}", lambda: Item(text="a"), f"content {number}") for number in range(_WINDOWS * _WINDOW_INPUTS + 1)
]
_SETTINGS = RunSettings(version=__version__, bundle="bundle", mode="gen", steps=8, batch_size=2, allow_control_tokens=False)


def _write(directory: Path) -> None:
    with PartialRun(directory / _OUTPUT, _SETTINGS, _DIMENSION, is_resumed=False) as partial:
        for window in range(_WINDOWS):
            sources = _SOURCES[window * _WINDOW_INPUTS : (window + 1) * _WINDOW_INPUTS]
            partial.append(EmbedResult(sources, _rows(sources), {1: "it is bad"} if window == 1 else {}))


def _rows(sources: list[Source]) -> np.ndarray:
    return np.array([[_SOURCES.index(source) + 1] * _DIMENSION for source in sources], np.float32)


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    rows, journal = ((directory / name).read_bytes() for name in (_ROWS, _JOURNAL))
    lines = journal.splitlines(keepends=True)

    @st.composite
    def draw(draw: DrawFn) -> Files:
        kind = draw(st.integers(0, 3))
        if kind == 0:
            return {_ROWS: draw(mutated([rows, b"", rows * 2]))}
        if kind == 1:
            return {_JOURNAL: draw(mutated([journal, b"", journal * 2], [b"ids", b"sha256", b"skipped"]))}
        changed = list(lines)
        at = draw(st.integers(0, len(lines) - 1))
        changed[at] = draw(mutated_json([json.loads(lines[at])], [["line 0"], [["a", "b"]]])) + b"\n"
        return {_JOURNAL: b"".join(changed)}

    return draw()


def _read(directory: Path) -> None:
    stopped_run(directory / _OUTPUT)
    with PartialRun(directory / _OUTPUT, _SETTINGS, _DIMENSION, is_resumed=True) as partial:
        remaining = list(partial.remaining(_SOURCES))
        assert partial.inputs + len(remaining) == len(_SOURCES)
        if remaining:
            partial.append(EmbedResult(remaining, _rows(remaining), is_whole=False))
        blocks = list(partial.blocks())
        assert sum(len(block.ids) for block in blocks) == len(_SOURCES)
        assert all(block.embeddings.shape == (len(block.ids), _DIMENSION) for block in blocks)
        assert [name for block in blocks for name in block.ids] == [source.id for source in _SOURCES]


SURFACE = Surface("partial-runs", 7, _write, _cases, _read)
