"""Images of more than 8 bits a channel: refused where Pillow would clip them, and the fix that is named works."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plume_export.errors import InputError
from plume_export.inputs import load_image

RAMP = np.linspace(0, 65535, 64 * 96).reshape(64, 96)
DEEP = {
    "16-bit.png": RAMP.astype(np.uint16),
    "16-bit.tif": RAMP.astype(np.uint16),
    "dark.png": (RAMP / 300).astype(np.uint16),
    "float.tif": (RAMP / 65535).astype(np.float32),
    "integers.tif": RAMP.astype(np.int32),
    "negative.tif": (RAMP - 40_000).astype(np.int32),
}


def png_16_bit(path: Path, values: np.ndarray, colour_type: int) -> Path:
    """Write a PNG of 16 bits a channel, which Pillow itself can only read."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("name", DEEP)
def test_the_fix_of_a_deep_picture_makes_one_that_is_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"it's {name}"
    Image.fromarray(DEEP[name]).save(path)
    with pytest.raises(InputError) as raised:
        load_image(path)
    mode = Image.open(path).mode
    assert f"it's {name} has mode {mode} (" in raised.value.message
    assert f"values from {DEEP[name].min():g} to {DEEP[name].max():g}" in raised.value.message
    assert raised.value.fix is not None
    command = raised.value.fix.partition(": ")[2]
    assert command.startswith("python -c ")
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=tmp_path)
    pixels = np.asarray(load_image(tmp_path / "8-bit.png"))[..., 0]
    assert pixels[0, 0] == 0
    assert (np.diff(pixels.reshape(-1).astype(int)) >= 0).all()  # a ramp still
    assert pixels[-1, -1] == 255 or name == "dark.png"


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
def test_every_deep_mode(mode: str) -> None:
    with pytest.raises(InputError, match=f"the {mode} image has mode {mode} ") as raised:
        load_image(Image.new(mode, (60, 40)))
    assert "np.asarray(image)" in str(raised.value.fix)


def test_a_pgm_of_16_bits(tmp_path: Path) -> None:
    (tmp_path / "scan.pgm").write_bytes(b"P5\n96 64\n65535\n" + RAMP.astype(">u2").tobytes())
    with pytest.raises(InputError, match=r"scan\.pgm has mode I "):
        load_image(tmp_path / "scan.pgm")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colour_of_16_bits_loses_its_lower_bytes(tmp_path: Path, colour_type: int, channels: int) -> None:
    """Pillow reads it so, and so does the published code."""
    values = np.stack([RAMP.astype(np.uint16)] * channels, axis=-1)
    if channels in (2, 4):
        values[..., -1] = 65535
    pixels = np.asarray(load_image(png_16_bit(tmp_path / "deep.png", values, colour_type)))
    np.testing.assert_array_equal(pixels, np.stack([values[..., 0] >> 8] * 3, axis=-1))
