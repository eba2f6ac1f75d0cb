"""Token positions by hand and against transformers; patch positions against the merge order."""

import numpy as np
import pytest
import torch
from transformers import Qwen2VLConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

from plume_export.inputs import mrope_positions, patch_positions

TEXT, IMAGE, VIDEO = 7, 8, 9
Runs = list[tuple[int, tuple[int, int, int]]]


def prompt(runs: Runs) -> np.ndarray:
    """Three text tokens before each medium, five at the end."""
    parts = [np.repeat([TEXT, token], [3, t * h * w // 4]) for token, (t, h, w) in runs]
    return np.concatenate([*parts, np.full(5, TEXT)])


def positions(runs: Runs) -> np.ndarray:
    return mrope_positions(prompt(runs), [grid for _, grid in runs], visual_token_ids=(IMAGE, VIDEO), merge_size=2)


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [(IMAGE, (1, 4, 4))],
        [(IMAGE, (1, 6, 2)), (IMAGE, (1, 2, 10))],
        [(VIDEO, (3, 4, 8))],
        [(IMAGE, (1, 4, 6)), (VIDEO, (2, 8, 4))],
    ],
)
def test_equals_transformers(runs: Runs) -> None:
    with torch.device("meta"):
        model = Qwen2VLModel(Qwen2VLConfig(text_config={"num_hidden_layers": 1}, vision_config={"depth": 1}))
    ids = torch.from_numpy(prompt(runs))[None]
    grids = {kind: [grid for token, grid in runs if token == kind] for kind in (IMAGE, VIDEO)}
    expected, _ = model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == IMAGE).int() + 2 * (ids == VIDEO).int(),
        image_grid_thw=torch.tensor(grids[IMAGE]) if grids[IMAGE] else None,
        video_grid_thw=torch.tensor(grids[VIDEO]) if grids[VIDEO] else None,
    )
    np.testing.assert_array_equal(positions(runs), expected[:, 0].numpy())


def test_text_after_a_long_video_counts_on_from_its_last_frame() -> None:
    """As in transformers 4.51; transformers 5 counts on from the rows and columns only, and repeats positions."""
    result = positions([(VIDEO, (6, 4, 4))])
    assert result[:, 3:27].max(axis=1).tolist() == [8, 4, 4]
    assert (result[:, 27:] == np.arange(9, 14)).all()


def test_patch_positions_follow_the_merge_order() -> None:
    first_two_tokens = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    result = patch_positions((1, 4, 6), 2)
    assert result.shape == (24, 2)
    assert result.dtype == np.int64
    assert result[:8].tolist() == first_two_tokens
    assert result[-1].tolist() == [3, 5]
    assert patch_positions((5, 4, 6), 2).tolist() == result.tolist()
