"""JSON lines of inputs; every line that can be read is prepared."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from PIL import Image

from plume_export.errors import InputError
from plume_export.inputs import inputs_from_file

from ..mutation import mutated, mutated_json
from ..sample_bundle import sample_preprocessor
from ..surface import Files, Surface

_CASE = "case.jsonl"
_LINES = (
    {"id": "a", "text": "What is this?", "image": "p.png"},
    {"id": "b", "image": ["p.png", "q.png"]},
    {"id": "c", "text": "What moves?", "video": ["p.png", "p.png"]},
    {"text": "東京 🙂 <|im_end|>", "image": None, "video": None},
    {"id": 7, "text": "a number as id"},
)
_VALUES = ("p.png", "missing.png", "", ".", "p.png\0", ["p.png"], ["p.png", 1], [["p.png"]], {"text": "a"}, "x" * 5000)


def _write(directory: Path) -> None:
    for name in ("p.png", "q.png"):
        Image.new("RGB", (30, 30), "red").save(directory / name)


@st.composite
def _lines(draw: DrawFn) -> Files:
    lines = [draw(mutated_json(_LINES, _VALUES, is_raw=draw(st.integers(0, 3)) == 0)) for _ in range(draw(st.integers(1, 3)))]
    content = draw(st.sampled_from((b"\n", b"\n", b"\r\n", b"\n\n", b" "))).join(lines)
    if draw(st.integers(0, 7)) == 0:
        content = draw(mutated([content, b"\xef\xbb\xbf" + content, content.decode("utf-8", "replace").encode("utf-16")]))
    return {_CASE: content}


def _read(directory: Path) -> None:
    """Refused if a line is."""
    inputs = inputs_from_file(directory / _CASE)
    sources = list(inputs.sources)
    assert inputs.count == len(sources)
    refused: InputError | None = None
    for number, source in enumerate(sources):
        try:
            prepared = sample_preprocessor(allows_control_tokens=number % 2 == 1).prepare(source.read())
        except InputError as error:
            refused = error
        else:
            assert prepared.position_ids.shape == (3, prepared.token_count)
            assert np.isfinite(prepared.media[0].patches.normalised()).all()
    if refused is not None:
        raise refused


SURFACE = Surface("json-lines", 12, _write, lambda _: _lines(), _read)
