"""Short videos of several containers, damaged; the reader is the whole preprocessing of an input."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from hypothesis import strategies as st

from plume_export.inputs import Item
from tests.golden_model import GOLDEN_MODEL

from ..mutation import mutated
from ..sample_bundle import sample_preprocessor
from ..surface import Files, Surface

_CASE = "case.mp4"  # the content counts, not the name
_FRAMES = 4
_SAVED = (
    *(("mp4", codec) for codec in ("libx264", "mpeg4", "mjpeg")),
    *(("mov", "libx264"), ("matroska", "libx264"), ("matroska", "ffv1"), ("webm", "libvpx"), ("webm", "libvpx-vp9")),
    *(("avi", "mpeg4"), ("avi", "mjpeg"), ("mpeg", "mpeg2video"), ("mpegts", "mpeg2video"), ("gif", "gif"), ("flv", "flv")),
)
_MARKS = (b"mvhd", b"tkhd", b"mdhd", b"stts", b"stsc", b"stsz", b"stco", b"stss", b"ctts", b"elst", b"avcC", b"avc1", b"hdlr")
_MARKS += (b"\x1a\x45\xdf\xa3", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\xe0", b"avih", b"strh", b"strf", b"idx1", b"moov")


def _write(directory: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (_FRAMES, 48, 64, 3), np.uint8)
    for container_name, codec in _SAVED:
        file = directory / f"seed-{container_name}-{codec}"
        with av.open(str(file), "w", format=container_name) as container:
            stream: Any = container.add_stream(codec, rate=25 if codec == "mpeg2video" else 4)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
            stream.codec_context.thread_count = 1
            for number in range(_FRAMES):
                frame = av.VideoFrame.from_ndarray(values[number] // 4 + 90, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    seeds = [file.read_bytes() for file in sorted(directory.glob("seed-*"))]
    return mutated(seeds, _MARKS).map(lambda content: {_CASE: content})


def _read(directory: Path) -> None:
    prepared = sample_preprocessor().prepare(Item(video=str(directory / _CASE)))
    (medium,) = prepared.media
    frames, rows, columns = medium.grid
    assert medium.patches.shape == (frames, rows * columns, GOLDEN_MODEL.vision.patch_values)
    assert prepared.visual_token_count == frames * rows * columns // GOLDEN_MODEL.vision.merged_patches


SURFACE = Surface("videos", 4, _write, _cases, _read)
