"""Rotation by EXIF: ignored with a notice, as published, or undone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from plume_export.preprocess import Notice, load_image

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
ORIENTATION = 0x0112


def rotated(path: Path, orientation: object = 6) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    PICTURE.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


def notices_of(path: Path, **options: bool) -> list[Notice]:
    notices: list[Notice] = []
    load_image(path, notify=notices.extend, **options)
    return notices


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_ignored_and_counted_or_undone(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = rotated(tmp_path / f"a.{suffix}", orientation)
    with Image.open(path) as image:
        stored, upright = image.convert("RGB"), ImageOps.exif_transpose(image).convert("RGB")
    assert load_image(path).tobytes() == stored.tobytes()
    assert [notice.kind for notice in notices_of(path)] == ["rotation ignored"] * (orientation > 1)
    assert load_image(path, exif_transpose=True).size == upright.size
    assert load_image(path, exif_transpose=True).tobytes() == upright.tobytes()
    assert notices_of(path, exif_transpose=True) == []


def test_pillow_turns_tiff_itself(tmp_path: Path) -> None:
    path = rotated(tmp_path / "a.tif")
    upright = PICTURE.transpose(Image.Transpose.ROTATE_270)
    for exif_transpose in (False, True):
        assert load_image(path, exif_transpose=exif_transpose).tobytes() == upright.tobytes()
        assert notices_of(path, exif_transpose=exif_transpose) == []


def test_an_image_of_pillow_carries_its_rotation(tmp_path: Path) -> None:
    with Image.open(rotated(tmp_path / "a.png")) as image:
        assert load_image(image, exif_transpose=True).size == (40, 60)
        assert load_image(image).size == (60, 40)
        notices: list[Notice] = []
        load_image(ImageOps.exif_transpose(image), notify=notices.extend)
    assert notices == []


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none(tmp_path: Path, orientation: int) -> None:
    path = rotated(tmp_path / "a.jpg", orientation)
    assert notices_of(path) == []
    assert load_image(path, exif_transpose=True).size == (60, 40)


@pytest.mark.parametrize("exif_transpose", [False, True])
def test_a_broken_block_does_no_harm(tmp_path: Path, exif_transpose: bool) -> None:
    whole = Image.Exif()
    whole[ORIENTATION] = 6
    block = whole.tobytes()
    blocks = [b"Exif\0\0" + b"rubbish", b"Exif\0\0", block[:-3], block[:12] + b"\xff" * 20, b"Exif\0\0MM\0*\xff\xff\xff\xff"]
    blocks += [block[:index] + bytes([block[index] ^ 255]) + block[index + 1 :] for index in range(6, len(block))]
    for number, broken in enumerate(blocks):
        for suffix in ("jpg", "png", "webp"):
            path = tmp_path / f"{number}.{suffix}"
            PICTURE.save(path, exif=broken)
            assert sorted(load_image(path, exif_transpose=exif_transpose).size) == [40, 60]
