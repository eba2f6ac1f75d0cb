"""What becomes of transparency: as published, and a notice where it is dropped."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plume_export.inputs import Notice, load_image

VALUES = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)
RGBA = Image.fromarray(VALUES)
RGB = RGBA.convert("RGB")

# The image, how it is saved, and what is told. Everything but RGBA is converted as Pillow does it.
Case = tuple[Callable[[], Image.Image], dict[str, Any], str]
CASES: dict[str, Case] = {
    "index.png": (lambda: RGB.quantize(16), {"transparency": 3}, "a transparent palette"),
    "bytes.png": (lambda: RGB.quantize(16), {"transparency": bytes(range(16))}, "a transparent palette"),
    "index.gif": (lambda: RGB.quantize(16), {"transparency": 3}, "a transparent palette"),
    "palette alpha.tif": (lambda: RGBA.convert("P").convert("PA"), {}, "a transparent palette"),
    "grey.png": (lambda: RGBA.convert("LA"), {}, "transparency beside grey"),
    "grey.tif": (lambda: RGBA.convert("LA"), {}, "transparency beside grey"),
    "grey index.png": (lambda: RGB.convert("L"), {"transparency": 100}, "transparency in mode L"),
    "colour.png": (lambda: RGB, {"transparency": RGB.getpixel((3, 4))}, "transparency in mode RGB"),
    "rgba.png": (lambda: RGBA, {}, ""),
    "opaque bytes.png": (lambda: RGB.quantize(16), {"transparency": b"\xff" * 16}, ""),
    "opaque grey.png": (lambda: RGB.convert("LA"), {}, ""),
    "plain.png": (lambda: RGB.quantize(16), {}, ""),
    "plain.jpg": (lambda: RGB.convert("CMYK"), {}, ""),
    "one bit.png": (lambda: RGB.convert("1"), {}, ""),
}


def published(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


@pytest.mark.parametrize("name", CASES)
def test_as_published_with_a_notice(tmp_path: Path, name: str) -> None:
    make, options, detail = CASES[name]
    path = tmp_path / name
    make().save(path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            expected = published(image).tobytes()
    notices: list[Notice] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own words would reach the user
        assert load_image(path, notify=notices.extend).tobytes() == expected
    assert [(notice.kind, notice.detail) for notice in notices] == [("transparency dropped", detail)] * bool(detail)


@pytest.mark.parametrize("mode", ["PA", "LA", "RGBa"])
def test_modes_of_images_from_python(mode: str) -> None:
    image = Image.new(mode, (60, 40))
    notices: list[Notice] = []
    assert load_image(image, notify=notices.extend).tobytes() == image.convert("RGB").tobytes()
    assert [notice.kind for notice in notices] == ["transparency dropped"]


def test_the_image_that_was_passed_keeps_its_transparency() -> None:
    image = RGB.quantize(16)
    image.info["transparency"] = 3
    load_image(image)
    assert image.info["transparency"] == 3


@pytest.mark.parametrize("transparency", [300, -1, "rubbish", b"\0" * 900])
def test_a_transparency_that_is_none_does_no_harm(transparency: object) -> None:
    image = RGB.quantize(16)
    expected = image.convert("RGB").tobytes()
    image.info["transparency"] = transparency
    assert load_image(image).tobytes() == expected
