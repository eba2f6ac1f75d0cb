"""Prompts of different lengths as the host arrays of one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..preprocess import PreparedInput, patch_positions
from ..spec import VisionSpec
from .backend import Array


@dataclass(frozen=True)
class VisionCall:
    """One run of the vision encoder: the names of its arrays, and how many visual embeddings it gives.

    `patches` is None for the blank image, whose embeddings the bundle holds.
    """

    patches: str | None
    patch_positions: str
    visual_tokens: int


@dataclass(frozen=True)
class HostBatch:
    """Everything that goes to the device for one batch, and what the vision encoder has to do with it, in row order."""

    arrays: dict[str, Array]
    vision_calls: list[VisionCall]

    @property
    def visual_tokens(self) -> int:
        return sum(call.visual_tokens for call in self.vision_calls)


def host_batch(batch: Sequence[PreparedInput], tokens: int, vision: VisionSpec, max_frames: int | None) -> HostBatch:
    """Pad the prompts to `tokens` on the right; rows of `visual_index` count over the visual embeddings of the whole batch.

    Frames of a video are encoded at most `max_frames` at a time.
    """
    arrays = _prompt_arrays(batch, tokens)
    calls: list[VisionCall] = []
    for media in (media for item in batch for media in item.media):
        frames, patches, _ = media.patches.shape
        frame_tokens = patches // vision.merged_patches
        if media.is_blank:
            calls.append(VisionCall(None, "", frames * frame_tokens))
            continue
        for first in range(0, frames, max_frames or frames):
            part = media.patches[first : first + (max_frames or frames)]
            number = len(calls)
            calls.append(VisionCall(f"patches {number}", f"patch_positions {number}", len(part) * frame_tokens))
            arrays[f"patches {number}"] = part
            arrays[f"patch_positions {number}"] = patch_positions(media.grid, vision.merge_size)
    return HostBatch(arrays, calls)


def _prompt_arrays(batch: Sequence[PreparedInput], tokens: int) -> dict[str, Array]:
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
