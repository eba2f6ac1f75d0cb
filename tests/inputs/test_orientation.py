"""Rotation by EXIF: ignored with a notice, as published, or undone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from plume_export.inputs import Notice, load_image

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


def broken_blocks() -> list[bytes]:
    whole = Image.Exif()
    whole[ORIENTATION] = 6
    block = whole.tobytes()
    blocks = [b"Exif\0\0" + b"rubbish", b"Exif\0\0", block[:-3], block[:12] + b"\xff" * 20, b"Exif\0\0MM\0*\xff\xff\xff\xff"]
    return blocks + [block[:index] + bytes([block[index] ^ 255]) + block[index + 1 :] for index in range(6, len(block))]


@pytest.mark.parametrize("exif_transpose", [False, True])
def test_a_broken_block_does_no_harm(tmp_path: Path, exif_transpose: bool) -> None:
    for number, broken in enumerate(broken_blocks()):
        for suffix in ("jpg", "png", "webp"):
            path = tmp_path / f"{number}.{suffix}"
            PICTURE.save(path, exif=broken)
            assert sorted(load_image(path, exif_transpose=exif_transpose).size) == [40, 60]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_that_stays_as_stored_for_a_broken_block_is_named(tmp_path: Path, suffix: str) -> None:
    """Of every cut and of every damage to the byte order, the offset, the count, and the tag's type and count."""
    whole = Image.Exif()
    whole[ORIENTATION] = 6
    block = whole.tobytes()
    cuts = [block[:length] for length in range(7, 24)]
    flips = [block[:at] + bytes([block[at] ^ 255]) + block[at + 1 :] for at in (*range(6, 14), *range(18, 24))]
    path = tmp_path / f"a.{suffix}"
    for broken in (*cuts, *flips):
        PICTURE.save(path, exif=broken)
        notices = [notice for notice in notices_of(path, exif_transpose=True) if notice.kind != "rotation ignored"]
        assert notices == [Notice("rotation unreadable", str(path))], broken
        assert notices_of(path) == []


def test_a_block_without_the_tag_is_whole(tmp_path: Path) -> None:
    other = Image.Exif()
    other[0x010F] = "a maker of cameras"
    PICTURE.save(tmp_path / "other.jpg", exif=other)
    PICTURE.save(tmp_path / "none.jpg")
    PICTURE.save(tmp_path / "empty.png", exif=b"Exif\0\0")
    for name in ("other.jpg", "none.jpg", "empty.png"):
        assert notices_of(tmp_path / name, exif_transpose=True) == []
    with Image.open(rotated(tmp_path / "a.jpg")) as image:
        del image.getexif()[ORIENTATION]
        notices: list[Notice] = []
        load_image(image, exif_transpose=True, notify=notices.extend)
    assert notices == []


def test_hexadecimal_digits_that_are_none(tmp_path: Path) -> None:
    """ImageMagick writes a block so into PNG."""
    with Image.open(rotated(tmp_path / "a.png")) as image:
        digits = image.info.pop("exif").hex()
        for text, kinds in ((digits, []), (digits[:40], ["rotation unreadable"]), ("no digits", ["rotation unreadable"])):
            given = image.copy()
            given.info["Raw profile type exif"] = f"\nexif\n{len(digits) // 2}\n{text}"
            notices: list[Notice] = []
            size = load_image(given, exif_transpose=True, notify=notices.extend).size
            assert [notice.kind for notice in notices] == kinds
            assert size == ((60, 40) if kinds else (40, 60))
