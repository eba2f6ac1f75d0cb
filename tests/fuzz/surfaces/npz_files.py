"""Files of arrays: the ranges of a calibration, and the constants of a bundle."""

import io
import pickle
import zipfile
from pathlib import Path

import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.bundle import CONSTANTS, MANIFEST, write_manifest
from plume_export.quantise.activation_ranges import (
    MODALITIES,
    PHASES,
    About,
    LinearRange,
    Ranges,
    read_ranges,
    write_ranges,
)
from plume_export.runtime.embedder import Embedder

from ..mutation import INTEGERS, mutated, mutated_json
from ..sample_bundle import sample_manifest, write_sample_bundle
from ..surface import Files, Surface

_RANGES = "ranges.npz"
_SHA256 = "0" * 64
_ABOUT = msgspec.to_builtins(About(2, "golden", _SHA256, 3, _SHA256, MODALITIES))
_CONSTANTS = f"bundle/{CONSTANTS}"


class _Canary:
    """Its pickle, when loaded, makes the file that it is named after."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self._path, "x")


def _write(directory: Path) -> None:
    generator = np.random.default_rng(0)
    seen = LinearRange(generator.random(4, np.float32), 7, 1.5, generator.random((3, 4), np.float32))
    write_ranges(
        Ranges(msgspec.convert(_ABOUT, About), {phase: {"model.layers.0.mlp.up_proj": seen} for phase in PHASES}),
        directory / _RANGES,
    )
    (directory / "bundle").mkdir()
    write_sample_bundle(directory / "bundle")


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    def cases_of(name: str) -> st.SearchStrategy[Files]:
        seed = (directory / name).read_bytes()
        damaged = st.one_of(_edited_members(seed), _edited_members(seed), mutated([seed], [b"PK\1\2", b"PK\5\6", b"PK\3\4"]))
        return damaged.map(lambda content: {name: content})

    return st.one_of(cases_of(_RANGES), cases_of(_CONSTANTS))


@st.composite
def _edited_members(draw: DrawFn, seed: bytes) -> bytes:
    """The archive with changed members, checksums right."""
    with zipfile.ZipFile(io.BytesIO(seed)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(members) - 1))
        name, content = members[at]
        kind = draw(st.integers(0, 5))
        if kind == 0:
            del members[at]
            members = members or [("a.npy", b"")]
        elif kind == 1:
            members[at] = (
                draw(st.sampled_from(("x", "a/b/c/d.npy", "../x.npy", "about.npy", "vision/x/y.npy", name + name))),
                content,
            )
        elif kind == 2:
            members[at] = (name, draw(_arrays()))
        elif kind == 3 and name == "about.npy":
            members[at] = (
                name,
                _npy(np.frombuffer(draw(mutated_json([_ABOUT])), np.uint8)),
            )
        else:
            members[at] = (name, draw(mutated([content], [b"descr", b"shape", b"fortran_order"])))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if draw(st.booleans()) else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


@st.composite
def _arrays(draw: DrawFn) -> bytes:
    """Arrays of another kind: pickles, huge shapes over little data, numbers that are not finite, structures."""
    kind = draw(st.integers(0, 6))
    if kind == 0:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        return header.getvalue() + pickle.dumps(np.array([_Canary("canary")], object))
    if kind == 1:
        shape = tuple(draw(st.lists(st.sampled_from([v for v in INTEGERS if v >= 0]), max_size=3)))
        header = io.BytesIO()
        dtype = draw(st.sampled_from(("<f4", "<i8", "|S1000000", "<U99999", "|V9", "<M8[ns]", "<c16", "|b1")))
        np.lib.format.write_array_header_2_0(header, {"descr": dtype, "fortran_order": draw(st.booleans()), "shape": shape})
        return header.getvalue() + bytes(draw(st.sampled_from((0, 16, 4096))))
    if kind == 2:
        return _npy(
            np.full(
                draw(st.sampled_from(((), (4,), (3, 4), (64, 4)))),
                draw(st.sampled_from((np.nan, np.inf, -1.0, 1e30))),
                np.float32,
            )
        )
    if kind == 3:
        return _npy(np.zeros((2, 4), [("a", "<f4"), ("b", "<i8")]))
    if kind == 4:
        return _npy(
            np.zeros(
                draw(st.sampled_from(((0,), (0, 4), (1, 1, 1), (4, 128)))),
                draw(st.sampled_from(("f2", "f8", "i1", "c8", "U3"))),
            )
        )
    if kind == 5:
        return _npy(np.zeros(1 << 22, np.float32))
    return draw(st.binary(max_size=64))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _read(directory: Path) -> None:
    """Both are read; either may refuse."""
    try:
        ranges = read_ranges(directory / _RANGES, _SHA256)
        for linears in ranges.linears.values():
            for seen in linears.values():
                (channels,) = seen.input_abs_max.shape
                assert seen.input_sample.shape[1:] == (channels,)
                assert seen.input_rows >= 1
                assert np.isfinite([*seen.input_abs_max, seen.output_abs_max]).all()
        (directory / "bundle" / MANIFEST).unlink()
        write_manifest(directory / "bundle", sample_manifest())
        Embedder(directory / "bundle", threads=1).close()
    finally:
        assert not Path("canary").exists(), "a pickle was loaded"


SURFACE = Surface("npz-files", 6, _write, _cases, _read)
