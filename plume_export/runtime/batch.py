"""Combine prompts of different lengths into the host arrays of one batch."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..inputs import Patches, PreparedInput, normalised_together, patch_positions
from ..recipe import ShapeRanges
from ..spec import VisionSpec
from .backend import Array

# Maximum number of patches per call if the bundle has no limits. Larger calls were not faster and took more memory (2b-slice,
# int8, 2 threads).
_PATCHES_AT_ONCE = 1024


@dataclass(frozen=True)
class VisionCall:
    """One run of the vision encoder: the names of its input arrays, and the number of visual embeddings that it returns.

    `patches` is None for the blank image, whose embeddings are stored in the bundle.
    """

    patches: str | None
    patch_positions: str
    visual_tokens: int


@dataclass(frozen=True)
class HostBatch:
    """The arrays to upload for one batch, and the runs of the vision encoder, whose outputs are concatenated in this order.

    `visual_rows` [visual_tokens] maps the visual embeddings, in the order of the prompts, to rows of the concatenated outputs.
    """

    arrays: dict[str, Array]
    vision_calls: list[VisionCall]
    visual_rows: NDArray[np.int64]

    @property
    def visual_tokens(self) -> int:
        return len(self.visual_rows)


def host_batch(batch: Sequence[PreparedInput], tokens: int, vision: VisionSpec, limits: ShapeRanges | None) -> HostBatch:
    """Pad the prompts to `tokens` on the right. `visual_index` refers to rows of the visual embeddings of the whole batch.

    Frames and images of one size are encoded together. If the bundle has limits, a call has at most as many patches as
    the largest image; otherwise at most _PATCHES_AT_ONCE.
    """
    arrays = prompt_arrays(batch, tokens)
    calls: list[VisionCall] = []
    rows: list[NDArray[np.int64]] = []  # per call: the positions of its embeddings in the order of the prompts
    blanks, parts_by_size = _parts_by_size(batch, vision)
    for part in blanks:
        calls.append(VisionCall(None, "", len(part.rows)))
        rows.append(part.rows)
    for (height, width), parts in parts_by_size.items():
        for together in _together(parts, _frames_at_once(height * width, vision, limits)):
            number = len(calls)
            arrays[f"patches {number}"] = normalised_together([part.patches for part in together])
            arrays[f"patch_positions {number}"] = patch_positions((1, height, width), vision.merge_size)
            rows.append(np.concatenate([part.rows for part in together]))
            calls.append(VisionCall(f"patches {number}", f"patch_positions {number}", len(rows[-1])))
    visual_rows = np.argsort(np.concatenate(rows))  # inverse of a permutation
    index = arrays["visual_index"]
    arrays["visual_index"] = np.where(index >= 0, visual_rows[index], -1)
    return HostBatch(arrays, calls, visual_rows)


def prompt_arrays(batch: Sequence[PreparedInput], tokens: int) -> dict[str, Array]:
    """Pad the prompts to `tokens` on the right. `visual_index` numbers all visual embeddings of the batch in prompt order."""
    shape = (len(batch), tokens)
    input_ids, visual_index = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    position_ids = np.zeros((3, *shape), np.int64)
    visual_offset = 0
    for row, item in enumerate(batch):
        count = item.token_count
        input_ids[row, :count] = item.input_ids
        visual_index[row, :count] = np.where(item.visual_index >= 0, item.visual_index + visual_offset, -1)
        position_ids[:, row, :count] = item.position_ids
        visual_offset += item.visual_token_count
    return {
        "token_count": np.array([item.token_count for item in batch], np.int64),
        "anchor_index": np.array([item.anchor_index for item in batch], np.int64),
        "input_ids": input_ids,
        "visual_index": visual_index,
        "position_ids": position_ids,
    }


class _Part(NamedTuple):
    """Consecutive frames of one image or video, and the positions of their visual embeddings in the order of the prompts."""

    patches: Patches
    rows: NDArray[np.int64]  # [visual_tokens]


def _parts_by_size(
    batch: Sequence[PreparedInput], vision: VisionSpec
) -> tuple[list[_Part], dict[tuple[int, int], list[_Part]]]:
    """Return the blank images, and all other images and videos grouped by the rows and columns of their patches."""
    blanks: list[_Part] = []
    by_size: dict[tuple[int, int], list[_Part]] = defaultdict(list)
    row = 0
    for medium in (medium for item in batch for medium in item.media):
        frames, patches, _ = medium.patches.shape
        visual_tokens = frames * patches // vision.merged_patches
        part = _Part(medium.patches, np.arange(row, row + visual_tokens))
        (blanks if medium.is_blank else by_size[medium.grid[1:]]).append(part)
        row += visual_tokens
    return blanks, by_size


def _frames_at_once(patches: int, vision: VisionSpec, limits: ShapeRanges | None) -> int:
    if limits is None:
        return max(1, _PATCHES_AT_ONCE // patches)
    return max(1, min(limits.frames.max, limits.image_tokens.max * vision.merged_patches // patches))


def _together(parts: Sequence[_Part], most_frames: int) -> Iterator[list[_Part]]:
    """Yield the parts of each call. An image or video with more than `most_frames` frames is split."""
    call: list[_Part] = []
    room = most_frames
    for patches, rows in parts:
        frames = patches.shape[0]
        frame_tokens = len(rows) // frames
        first = 0
        while first < frames:
            last = min(first + room, frames)
            call.append(_Part(patches.frames(first, last), rows[first * frame_tokens : last * frame_tokens]))
            room -= last - first
            first = last
            if room == 0:
                yield call
                call, room = [], most_frames
    if call:
        yield call
