"""Rotary positions: of tokens in the decoder (M-RoPE), and of patches in the vision encoder."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .patches import Grid


def mrope_positions(
    input_ids: NDArray[np.int64],  # [tokens]
    grids: Sequence[Grid],
    *,
    visual_token_ids: Sequence[int],
    merge_size: int,
) -> NDArray[np.int64]:
    """Return the temporal, row and column position of every token, int64 [3, tokens].

    The k-th run of visual tokens has the k-th grid. Text continues at one above the largest position so far, on all three axes.
    Source: `get_rope_index` of Qwen2-VL in transformers 4.51, which the original evaluation used. In transformers 5, the text
    after a video continues from its rows and columns only, which differs for long videos.
    """
    is_visual = np.isin(input_ids, list(visual_token_ids))
    starts = np.flatnonzero(is_visual & ~np.append(False, is_visual[:-1]))
    position_ids = np.empty((3, len(input_ids)), np.int64)
    token, position = 0, 0
    for start, grid in zip(starts.tolist(), grids, strict=True):
        text = np.arange(start - token) + position
        position_ids[:, token:start] = text
        position += start - token
        visual = np.indices((grid[0], grid[1] // merge_size, grid[2] // merge_size)).reshape(3, -1)
        token = start + visual.shape[1]
        position_ids[:, start:token] = visual + position
        position += int(visual.max()) + 1
    position_ids[:, token:] = np.arange(len(input_ids) - token) + position
    return position_ids


def patch_positions(grid: Grid, merge_size: int) -> NDArray[np.int64]:
    """Return the row and column of every patch of one frame in merge order, int64 [patches, 2]."""
    _, rows, columns = grid
    positions = np.indices((rows, columns))  # [2, rows, columns]
    blocks = positions.reshape(2, rows // merge_size, merge_size, columns // merge_size, merge_size)
    return np.ascontiguousarray(blocks.transpose(1, 3, 2, 4, 0).reshape(-1, 2))
