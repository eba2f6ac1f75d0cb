"""Patches as bytes: an image once, frames cut without loss, and what a batch of both kinds becomes."""

import numpy as np
import pytest

from plume_export.inputs import Media, Patches, PreparedInput
from plume_export.inputs.patches import patches_from_frames
from plume_export.runtime.batch import host_batch
from plume_export.spec import PLUME_2B

VISION, PREPROCESS = PLUME_2B.vision, PLUME_2B.preprocess


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 56, 84, 3), np.uint8)


def patches_of(frames: np.ndarray) -> Patches:
    return patches_from_frames(frames, VISION, PREPROCESS)[0]


def test_a_still_image_is_stored_once_and_normalised_as_a_pair_of_frames() -> None:
    image = noise(1)
    still, pair = patches_of(image), patches_of(np.repeat(image, 2, axis=0))
    np.testing.assert_array_equal(still.normalised(), pair.normalised())
    assert still.normalised().nbytes == 8 * still.pixels.nbytes
    assert pair.normalised().nbytes == 4 * pair.pixels.nbytes


def test_frames_of_a_video_are_rows_of_the_whole() -> None:
    video = patches_of(noise(6))
    part = video.frames(1, 3)
    assert part.shape == (2, *video.shape[1:])
    np.testing.assert_array_equal(part.normalised(), video.normalised()[1:3])


def test_frames_that_fill_no_temporal_patch_are_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        patches_of(noise(3))


def test_an_image_and_a_video_of_one_size_share_a_call() -> None:
    media = []
    for seed, frames in enumerate((1, 4)):
        patches, grid = patches_from_frames(noise(frames, seed), VISION, PREPROCESS)
        media.append(Media(patches, grid))
    tokens = sum(medium.grid[0] * 6 for medium in media)
    zeros = np.zeros(tokens, np.int64)
    prompt = PreparedInput(zeros, np.zeros((3, tokens), np.int64), np.arange(tokens), 0, tuple(media))
    host = host_batch([prompt], tokens, VISION, None)
    expected = np.concatenate([medium.patches.normalised() for medium in media])
    np.testing.assert_array_equal(host.arrays["patches 0"], expected)
    assert len(host.vision_calls) == 1
