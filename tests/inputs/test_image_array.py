"""uint8 arrays as images, and what other arrays are told."""

import numpy as np
import pytest

from plume_export.errors import InputError
from plume_export.inputs import load_image


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)


def test_grey_rgb_and_rgba() -> None:
    grey, rgb, rgba = array(5, 7), array(5, 7, 3), array(5, 7, 4)
    np.testing.assert_array_equal(np.asarray(load_image(grey)), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(np.asarray(load_image(rgb)), rgb)
    rgba[..., 3] = 0
    assert (np.asarray(load_image(rgba)) == 255).all()


def test_any_layout_in_memory() -> None:
    rgb = array(5, 7, 3)
    for view in (np.asfortranarray(rgb), rgb[::-1][::-1], rgb.transpose(1, 0, 2).copy().transpose(1, 0, 2)):
        np.testing.assert_array_equal(np.asarray(load_image(view)), rgb)


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (array(3, 5, 9), "transpose(1, 2, 0)"),
        (array(4, 5, 9), "transpose(1, 2, 0)"),
        (array(5, 9, 1), "array[:, :, 0]"),
        (array(1, 5, 9), "array[0]"),
        (array(5, 9, 2), "channels last"),
        (array(2, 5, 9, 3), "list(array)"),
        (array(60), "array.tobytes()"),
        (np.zeros((), np.uint8), "one image"),
        (np.zeros((5, 5, 3), bool), "astype(np.uint8) * 255"),
        (np.zeros((5, 5, 3), np.float32), "(array * 255).astype(np.uint8)"),
        (np.zeros((5, 5), np.uint16), "array // 257"),
        (np.zeros((5, 5), np.int64), "array.astype(np.uint8)"),
        (np.zeros((3, 5, 9), np.float32), "transpose(1, 2, 0), with the channels last; convert it"),
        (np.array([["a"]]), "convert it"),
    ],
)
def test_array_of_another_kind(value: np.ndarray, fix: str) -> None:
    with pytest.raises(InputError, match=r"expected uint8 \[height, width, 3\], \[height, width, 4\] or") as raised:
        load_image(value)
    assert str(list(value.shape)) in str(raised.value)
    assert raised.value.fix is not None
    assert fix in raised.value.fix


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0, 3), (5, 0, 4)])
def test_no_pixels(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected at least 1x1"):
        load_image(np.zeros(shape, np.uint8))
