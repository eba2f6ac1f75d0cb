"""uint8 frames to normalised, flattened patches in Qwen2-VL's order."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..spec import PreprocessSpec, VisionSpec

FrameArray: TypeAlias = NDArray[np.uint8]
PatchArray: TypeAlias = NDArray[np.float32]
# Temporal patches, rows and columns of patches.
Grid: TypeAlias = tuple[int, int, int]


def patches_from_frames(
    frames: FrameArray,  # [frames, height, width, channels]; frames, height and width fill whole patches
    vision: VisionSpec,
    preprocess: PreprocessSpec,
) -> tuple[PatchArray, Grid]:
    """Return float32 [temporal patches, patches, channels * temporal * patch * patch] and the grid.

    The patches of one frame are in merge order: those that become one visual token follow one another. Source: the
    numpy image processor of Qwen2-VL (transformers 4.51 for frames that differ within a temporal patch).
    """
    temporal, size, merge = vision.temporal_patch_size, vision.patch_size, vision.merge_size
    count, height, width, channels = frames.shape
    grid = (count // temporal, height // size, width // size)
    blocks = frames.reshape(grid[0], temporal, grid[1] // merge, merge, size, grid[2] // merge, merge, size, channels)
    # [t, rows, columns, merge, merge, channels, temporal, size, size]
    values = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(grid[0], grid[1] * grid[2], channels, -1)
    table = normalisation_table(preprocess)
    patches = np.empty(values.shape, np.float32)
    for channel in range(channels):
        patches[:, :, channel] = table[channel][values[:, :, channel]]
    return patches.reshape(grid[0], grid[1] * grid[2], -1), grid


def normalisation_table(preprocess: PreprocessSpec) -> NDArray[np.float32]:
    """Return [channels, 256]: every uint8 value rescaled in float64 and normalised in float32, as transformers does."""
    rescaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None] for values in (preprocess.image_mean, preprocess.image_std))
    table: NDArray[np.float32] = (rescaled - mean) / std
    return table
