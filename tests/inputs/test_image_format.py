"""Formats that need more than Pillow, and files of more than one frame."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from sklearn.datasets import load_sample_image

from plume_export.errors import InputError, MissingExtraError
from plume_export.inputs import Notice, load_image

PICTURE = Image.fromarray(load_sample_image("flower.jpg")).resize((240, 160))


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(PICTURE).save(tmp_path / "photo.heic", quality=95)
    return tmp_path / "photo.heic"


def test_heic_by_path_and_bytes(heic: Path) -> None:
    image = load_image(heic)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image, np.int16) - np.asarray(PICTURE)).mean() < 8
    assert load_image(heic.read_bytes()).tobytes() == load_image(io.BytesIO(heic.read_bytes())).tobytes() == image.tobytes()
    renamed = heic.rename(heic.with_suffix(".jpg"))  # as phones' sharing does
    assert load_image(renamed).tobytes() == image.tobytes()


def test_pillow_stays_as_it_was(heic: Path) -> None:
    before = set(Image.OPEN)
    load_image(heic)
    assert set(Image.OPEN) == before


def test_heic_without_its_package_names_the_extra(heic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for kind in (InputError, MissingExtraError):  # one bad input, which on_error="skip" leaves out
        with pytest.raises(kind, match=r"photo\.heic is a HEIC image(.|\n)*plume-export\[heif\]"):
            load_image(heic)


def test_damaged_heic(heic: Path) -> None:
    content = heic.read_bytes()
    for broken in (content[:40], content[:-200], content[:12]):
        with pytest.raises(InputError, match=r"the image of [\d,]+ bytes cannot be"):
            load_image(broken)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "photo.avif", quality=95)
    assert np.abs(np.asarray(load_image(tmp_path / "photo.avif"), np.int16) - np.asarray(PICTURE)).mean() < 8


def test_avif_that_pillow_cannot_read() -> None:
    with pytest.raises(InputError, match=r"is an AVIF image, which this version of Pillow cannot read(.|\n)*Pillow>=11\.3"):
        load_image(b"\0\0\0\x1cftypavif" + bytes(20))


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_the_first_frame_is_taken_with_a_notice(tmp_path: Path, suffix: str) -> None:
    frames = [PICTURE, PICTURE.rotate(180), PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    frames[0].save(tmp_path / f"one.{suffix}")
    frames[0].save(tmp_path / f"all.{suffix}", save_all=True, append_images=frames[1:])
    for name, kinds in (("one", []), ("all", ["frames ignored"])):
        notices: list[Notice] = []
        path = tmp_path / f"{name}.{suffix}"
        with Image.open(path) as image:
            assert load_image(path, notify=notices.extend).tobytes() == image.convert("RGB").tobytes()
        assert [notice.kind for notice in notices] == kinds
