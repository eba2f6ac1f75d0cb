"""Pictures of every format that Pillow writes, damaged; the reader is the whole preprocessing of an input."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from PIL import Image, PngImagePlugin

from plume_export.inputs import Item
from tests.golden_model import GOLDEN_MODEL

from ..mutation import INTEGERS, mutated
from ..sample_bundle import sample_preprocessor
from ..surface import Files, Surface

_CASE = "case.png"  # the content counts, not the name
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MARKS = (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"VP8", b"ALPH", b"ihdr")
_MARKS += (b"jp2c", b"ispe", b"iloc", b"mdat", b"II*\0", b"MM\0*", b"Exif", b"8BPS", b"qoif")
# Of so many cases one is a picture that is small as a file and large in memory.
_BOMB_RARITY = 1000
# Above this the values of patches are not looked at.
_MOST_PATCHES = 4096

# Format, mode, options of Pillow's writer.
_SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("PNG", "P", {"transparency": 0, "bits": 4}),
    ("PNG", "RGB", {"save_all": True}),
    *(("JPEG", mode, {"quality": 50}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (False, True)),
    ("WEBP", "RGB", {"save_all": True}),
    *(("GIF", mode, {}) for mode in ("1", "L", "P")),
    ("GIF", "P", {"save_all": True, "transparency": 1, "disposal": 2}),
    *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr", "LAB")),
    *(("TIFF", "RGB", {"compression": kind}) for kind in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "RGB", {"save_all": True}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(("PPM", mode, {}) for mode in ("1", "L", "RGB", "I;16", "F")),
    *(("TGA", mode, {"compression": "tga_rle"}) for mode in ("L", "LA", "P", "RGB", "RGBA")),
    *(("JPEG2000", mode, {}) for mode in ("L", "LA", "RGB", "RGBA")),
    *((name, "RGB", {}) for name in ("AVIF", "PCX", "SGI", "DDS", "IM", "MPO", "QOI", "EPS", "SPIDER", "PDF")),
    *((name, "RGBA", {}) for name in ("AVIF", "ICO", "ICNS", "DDS", "SGI", "QOI")),
    *((name, "1", {}) for name in ("XBM", "MSP")),
    ("ICO", "RGBA", {"bitmap_format": "bmp"}),
    ("BLP", "P", {}),
)


def _write(directory: Path) -> None:
    for number, (name, mode, options) in enumerate(_SAVED):
        picture, extra = _picture(mode), dict(options)
        if "save_all" in options:
            extra["append_images"] = [picture.rotate(90), picture.rotate(180)]
        file = io.BytesIO()
        (picture.convert("F") if name == "SPIDER" else picture).save(file, name, **extra)
        (directory / f"seed-{number}-{name.lower()}").write_bytes(file.getvalue())
    for name, content in _bombs().items():
        (directory / f"bomb-{name}").write_bytes(content)


def _picture(mode: str) -> Image.Image:
    """20 x 14 pixels: in so small a file many of the bytes are fields."""
    values = np.random.default_rng(len(mode)).integers(0, 256, (14, 20, 4), np.uint8)
    if mode == "LAB":
        return Image.new("LAB", (20, 14), (9, 8, 7))
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    picture = Image.fromarray(values)
    return picture if mode == "RGBA" else picture.convert("RGB").convert(mode)


def _bombs() -> dict[str, bytes]:
    """Pictures of 169 million pixels, just below the limit, and above it; text and colour profiles of 64 MB."""
    gray, empty = zlib.compress(bytes(13_001 * 13_000)), zlib.compress(bytes(1 << 26))
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    info = PngImagePlugin.PngInfo()
    small = io.BytesIO()
    _picture("RGB").save(small, "PNG", pnginfo=info)
    parts = _chunks(small.getvalue())
    stuffed = {
        "ztxt.png": (b"zTXt", b"Comment\0\0" + empty),
        "iccp.png": (b"iCCP", b"profile\0\0" + empty),
        "itxt.png": (b"iTXt", b"Comment\0\1\0\0\0" + empty),
    }
    gif, tiff = io.BytesIO(), io.BytesIO()
    Image.new("P", (12_000, 12_000)).save(gif, "GIF")
    Image.new("L", (12_000, 12_000)).save(tiff, "TIFF", compression="tiff_deflate")
    return {
        "pixels.png": _png([(b"IHDR", header), (b"IDAT", gray), (b"IEND", b"")]),
        "more.png": _png([(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)), (b"IDAT", gray), (b"IEND", b"")]),
        "pixels.gif": gif.getvalue(),
        "pixels.tiff": tiff.getvalue(),
        **{name: _png([parts[0], chunk, *parts[1:]]) for name, chunk in stuffed.items()},
    }


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    seeds = [file.read_bytes() for file in sorted(directory.glob("seed-*"))]
    bombs = [file.read_bytes() for file in sorted(directory.glob("bomb-*"))]
    pngs = [seed for seed in seeds if seed.startswith(_SIGNATURE)]

    @st.composite
    def draw(draw: DrawFn) -> Files:
        kind = draw(st.integers(0, _BOMB_RARITY))
        if kind == 0:
            content = draw(st.sampled_from(bombs))
        elif kind < _BOMB_RARITY // 5:
            content = draw(_damaged_chunks(pngs))
        else:
            content = draw(mutated(seeds, _MARKS))
        return {_CASE: content}

    return draw()


@st.composite
def _damaged_chunks(draw: DrawFn, seeds: list[bytes]) -> bytes:
    """A PNG with damage inside a chunk whose checksum is right, so that decoders see it."""
    chunks = _chunks(draw(st.sampled_from(seeds)))
    at = draw(st.integers(0, len(chunks) - 1))
    kind, content = chunks[at]
    if kind == b"IHDR" and draw(st.booleans()):
        sizes = st.sampled_from([value for value in INTEGERS if 0 <= value < 1 << 32])
        content = struct.pack(">II", draw(sizes), draw(sizes)) + content[8:]
    elif kind == b"IDAT" and draw(st.booleans()):
        content = zlib.compress(draw(mutated([zlib.decompress(content)])))
    else:
        content = draw(mutated([content]))
    chunks[at] = (draw(st.sampled_from((kind, kind, kind, b"acTL", b"fcTL", b"fdAT", b"iCCP", b"eXIf"))), content)
    return _png(chunks)


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(_SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return _SIGNATURE + b"".join(parts)


def _read(directory: Path) -> None:
    prepared = sample_preprocessor().prepare(Item(images=(directory / _CASE,)))
    (medium,) = prepared.media
    frames, rows, columns = medium.grid
    assert medium.patches.shape == (frames, rows * columns, GOLDEN_MODEL.vision.patch_values)
    assert prepared.visual_token_count == frames * rows * columns // GOLDEN_MODEL.vision.merged_patches
    if prepared.patch_count <= _MOST_PATCHES:
        assert np.isfinite(medium.patches.normalised()).all()


SURFACE = Surface("images", 20, _write, _cases, _read)
