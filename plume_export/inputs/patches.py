"""Convert uint8 frames to normalised, flattened patches in Qwen2-VL's order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..spec import PreprocessSpec, VisionSpec

FrameArray: TypeAlias = NDArray[np.uint8]
PatchArray: TypeAlias = NDArray[np.float32]
# Temporal patches, rows and columns of patches.
Grid: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Patches:
    """Patches of frames of one size, kept as uint8 until `normalised` is called. A still image is not repeated.

    This takes an eighth of the memory of normalised patches for an image, and a quarter for a video.
    """

    pixels: NDArray[np.uint8]  # [frames, patches, channels, 1 or temporal, patch * patch]; 1 is repeated
    table: NDArray[np.float32]  # [channels, 256]
    temporal: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the result of `normalised`: frames, patches, channels * temporal * patch * patch."""
        frames, patches, channels, _, values = self.pixels.shape
        return frames, patches, channels * self.temporal * values

    def frames(self, first: int, last: int) -> "Patches":
        """Return the patches of frames `first` to `last`, excluding `last`."""
        return Patches(self.pixels[first:last], self.table, self.temporal)

    def normalised(self) -> PatchArray:
        """Return float32 [frames, patches, channels * temporal * patch * patch]."""
        return normalised_together([self])

    def write(self, target: PatchArray) -> None:
        """Write the result of `normalised` into an array of the same shape."""
        frames, patches, channels, _, values = self.pixels.shape
        by_channel = target.reshape(frames, patches, channels, self.temporal, values)
        for channel in range(channels):
            by_channel[:, :, channel] = self.table[channel][self.pixels[:, :, channel]]


def normalised_together(parts: Sequence[Patches]) -> PatchArray:
    """Return frames of one size as one array, float32 [frames, patches, channels * temporal * patch * patch]."""
    together = np.empty((sum(part.shape[0] for part in parts), *parts[0].shape[1:]), np.float32)
    first = 0
    for part in parts:
        last = first + part.shape[0]
        part.write(together[first:last])
        first = last
    return together


def patches_from_frames(
    frames: FrameArray,  # [frames, height, width, channels]
    vision: VisionSpec,
    preprocess: PreprocessSpec,
) -> tuple[Patches, Grid]:
    """Return the patches of a video or of one frame, and the grid. Qwen2-VL repeats one frame to fill a temporal patch.

    The size of `frames` must be a multiple of the patch size on every axis, except that a single frame is allowed. The patches
    of a frame are in merge order: patches that become one visual token are consecutive. Source: the numpy image processor of
    Qwen2-VL (transformers 4.51 for frames that differ within a temporal patch).
    """
    size, merge = vision.patch_size, vision.merge_size
    count, height, width, channels = frames.shape
    different = 1 if count == 1 else vision.temporal_patch_size
    grid = (count // different, height // size, width // size)
    blocks = frames.reshape(grid[0], different, grid[1] // merge, merge, size, grid[2] // merge, merge, size, channels)
    # [t, rows, columns, merge, merge, channels, different, size, size]
    pixels = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(grid[0], grid[1] * grid[2], channels, different, size * size)
    return Patches(pixels, normalisation_table(preprocess), vision.temporal_patch_size), grid


def normalisation_table(preprocess: PreprocessSpec) -> NDArray[np.float32]:
    """Return [channels, 256]: every uint8 value, rescaled in float64 and normalised in float32, as in transformers."""
    rescaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None] for values in (preprocess.image_mean, preprocess.image_std))
    table: NDArray[np.float32] = (rescaled - mean) / std
    return table
