"""What goes to the device for one batch: which media are encoded together, and which rows belong to which prompt."""

import numpy as np
import pytest

from plume_export.inputs import Media, Patches, PreparedInput
from plume_export.recipe import AxisRange, ShapeRanges
from plume_export.runtime.batch import HostBatch, host_batch
from plume_export.spec import PLUME_2B

VISION = PLUME_2B.vision


def medium(value: int, height: int, width: int, frames: int = 1, *, is_blank: bool = False) -> Media:
    """A medium whose visual embeddings can be told: every patch holds `value`, its frame and its number."""
    pixels = np.zeros((frames, height * width, 3), np.uint16)  # numbers above 255 too
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = value, np.arange(frames)[:, None], np.arange(height * width)
    unchanged = np.tile(np.arange(height * width, dtype=np.float32), (3, 1))
    return Media(Patches(pixels[..., None, None], unchanged, 1), (frames, height, width), is_blank)


def prompt(*media: Media, text: int = 3) -> PreparedInput:
    visual = sum(item.patches.shape[0] * item.patches.shape[1] for item in media) // 4
    index = np.concatenate([np.full(text, -1), np.arange(visual), np.full(text, -1)])
    zeros = np.zeros(len(index), np.int64)
    return PreparedInput(zeros, np.zeros((3, len(index)), np.int64), index, 0, media)


def encoded(host: HostBatch) -> np.ndarray:
    """Return [visual_tokens, 3] as a vision encoder would: the first patch of every four, call after call; blanks are -1."""
    rows = []
    for call in host.vision_calls:
        if call.patches is None:
            rows.append(np.full((call.visual_tokens, 3), -1.0))
        else:
            rows.append(host.arrays[call.patches][:, ::4].reshape(-1, 3))
            assert host.arrays[call.patch_positions].shape == (host.arrays[call.patches].shape[1], 2)
        assert len(rows[-1]) == call.visual_tokens
    return np.concatenate(rows)


def assert_rows_are_right(batch: list[PreparedInput], host: HostBatch) -> None:
    wanted = [
        np.full((item.patches.shape[1] // 4, 3), -1.0) if item.is_blank else item.patches.normalised()[:, ::4].reshape(-1, 3)
        for one in batch
        for item in one.media
    ]
    visual_embeddings, index = encoded(host), host.arrays["visual_index"]
    assert (visual_embeddings[index[index >= 0]] == np.concatenate(wanted)).all()
    assert (visual_embeddings[host.visual_rows] == np.concatenate(wanted)).all()
    for row, one in enumerate(batch):
        assert ((index[row, : one.token_count] >= 0) == (one.visual_index >= 0)).all()
        assert (index[row, one.token_count :] == -1).all()


MIXED = [
    prompt(medium(1, 4, 4), medium(2, 8, 4), medium(3, 4, 4)),
    prompt(medium(0, 4, 4, is_blank=True), text=9),
    prompt(medium(4, 4, 8)),
    prompt(medium(5, 4, 4, frames=3)),
    prompt(medium(6, 8, 4), text=1),
]


def test_media_of_one_size_are_encoded_together() -> None:
    host = host_batch(MIXED, 40, VISION, None)
    sizes = [None if call.patches is None else host.arrays[call.patches].shape[:2] for call in host.vision_calls]
    assert sizes == [None, (5, 16), (2, 32), (1, 32)]
    assert_rows_are_right(MIXED, host)


@pytest.mark.parametrize("image_tokens", [8, 768 * 2, 768 * 4])
def test_as_many_at_a_time_as_the_bundle_allows(image_tokens: int) -> None:
    limits = ShapeRanges(AxisRange(1, 1, 8), AxisRange(16, 64, 8000), AxisRange(4, 64, image_tokens))
    host = host_batch(MIXED, 40, VISION, limits)
    shapes = [host.arrays[call.patches].shape[:2] for call in host.vision_calls if call.patches is not None]
    assert max(frames for frames, _ in shapes) == min(limits.frames[2], 5)
    assert_rows_are_right(MIXED, host)


def test_no_more_patches_at_a_time_than_memory_is_meant_for() -> None:
    batch = [prompt(medium(value, 32, 16)) for value in range(5)]
    host = host_batch(batch, 200, VISION, None)
    assert [len(host.arrays[f"patches {number}"]) for number in range(3)] == [2, 2, 1]
    assert_rows_are_right(batch, host)
    limits = ShapeRanges(AxisRange(1, 1, 8), AxisRange(16, 64, 8000), AxisRange(4, 64, 768 * 3))
    assert len(host_batch(batch, 200, VISION, limits).vision_calls) == 2  # three frames
    large = [prompt(medium(value, 64, 72)) for value in range(5)]
    assert len(host_batch(large, 1200, VISION, limits).vision_calls) == 3  # two images have as many patches as the largest


def test_a_long_video_is_cut() -> None:
    batch = [prompt(medium(1, 32, 16, frames=5))]
    host = host_batch(batch, 700, VISION, None)
    assert [len(host.arrays[f"patches {number}"]) for number in range(3)] == [2, 2, 1]
    assert_rows_are_right(batch, host)
