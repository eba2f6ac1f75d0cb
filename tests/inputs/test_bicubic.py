"""The numpy bicubic resize against torch.nn.functional.interpolate."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plume_export.inputs.bicubic import resize_frame

SIZES = [  # height, width to height, width
    ((56, 56), (252, 448)),
    ((56, 112), (224, 448)),
    ((480, 640), (224, 308)),
    ((896, 448), (448, 224)),
    ((37, 91), (37, 200)),
    ((300, 200), (301, 199)),
    ((1080, 1920), (560, 1008)),
    ((1, 150), (84, 1596)),
    ((700, 900), (28, 28)),
]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def by_torch(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """torchvision's resize of a uint8 tensor."""
    tensor = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(tensor, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 255).round().to(torch.uint8)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    frame = noise(*source)
    ours, theirs = resize_frame(frame, *target), by_torch(frame, *target)
    assert ours.shape == theirs.shape
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        np.testing.assert_array_equal(ours, theirs)
    else:  # this build of PyTorch rounds its sums differently
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-4


def test_flat_colour_stays_flat() -> None:
    assert (resize_frame(np.full((50, 70, 3), 201, np.uint8), 84, 112) == 201).all()


def test_same_size_is_unchanged() -> None:
    frame = noise(28, 56)
    assert resize_frame(frame, 28, 56) is frame
