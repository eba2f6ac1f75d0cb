"""Modes of Pillow's images: taken, or refused with a conversion that works."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from plume_export.errors import InputError
from plume_export.inputs import load_image
from plume_export.inputs.image_pixels import TAKEN_MODES

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8))


@pytest.mark.parametrize("mode", TAKEN_MODES)
def test_a_mode_that_is_taken(mode: str) -> None:
    assert load_image(Image.new(mode, (60, 40))).mode == "RGB"


def test_every_other_mode_of_pillow_is_refused() -> None:
    for mode in {*Image.MODES, "La", "LAB", "I;16B"} - {*TAKEN_MODES}:
        with pytest.raises(InputError, match=f"the {mode} image has mode {mode}") as raised:
            load_image(Image.new(mode, (60, 40)))
        assert raised.value.fix is not None


@pytest.mark.parametrize("mode", ["La", "LAB"])
def test_the_conversion_that_an_error_names_works(mode: str) -> None:
    given = PICTURE.convert("LA").convert("La") if mode == "La" else PICTURE.convert("RGB").convert("LAB")
    with pytest.raises(InputError, match=f"has mode {mode}; expected one of 1, L, LA, P, ") as raised:
        load_image(given)
    *_, conversion = str(raised.value.fix).partition("image = ")
    converted = eval(conversion, {"image": given, "ImageCms": ImageCms})
    assert load_image(converted).size == given.size


def test_the_command_that_an_error_names_works(tmp_path: Path) -> None:
    path = tmp_path / "it's lab.tif"
    PICTURE.convert("RGB").convert("LAB").save(path)
    with pytest.raises(InputError, match=r"lab\.tif has mode LAB; expected one of") as raised:
        load_image(path)
    command = str(raised.value.fix).partition(": ")[2]
    assert command.startswith("python -c ")
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=tmp_path)
    difference = np.asarray(load_image(tmp_path / "converted.png")).astype(int) - np.asarray(PICTURE.convert("RGB"))
    assert np.abs(difference).mean() < 3
