"""The nine golden inputs: what the published preprocessing gives for them, exactly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plume_export.inputs import Preprocessor, item_from_json
from tests.golden_model import GOLDEN_MODEL

GOLDEN = Path(__file__).parents[1] / "golden"
LINES = {json.loads(line)["id"]: line for line in (GOLDEN / "inputs.jsonl").read_text().splitlines()}


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(GOLDEN / "golden.npz")


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return Preprocessor((GOLDEN / "checkpoint/tokenizer.json").read_text(encoding="utf-8"), GOLDEN_MODEL)


@pytest.mark.parametrize("name", LINES)
def test_golden_input(name: str, golden: Any, preprocessor: Preprocessor) -> None:
    prepared = preprocessor.prepare(item_from_json(LINES[name], GOLDEN))
    row = golden["ids"].tolist().index(name)
    np.testing.assert_array_equal(prepared.input_ids, golden[f"{name}/input_ids"])
    np.testing.assert_array_equal(prepared.position_ids, golden[f"{name}/position_ids"])
    assert prepared.token_count == golden["kv_len_prefix"][row]
    assert prepared.anchor_index == golden["disc_index"][row]
    assert [medium.grid for medium in prepared.media] == [tuple(grid) for grid in golden[f"{name}/grid_thw"]]
    assert prepared.visual_token_count == len(golden[f"{name}/vision_tokens"])

    patches = np.concatenate(
        [medium.patches.normalised().reshape(-1, GOLDEN_MODEL.vision.patch_values) for medium in prepared.media]
    )
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches[[0, 1, len(patches) // 2, -1]], golden[f"{name}/pixel_rows"])
    values = patches.astype(np.float64)
    np.testing.assert_allclose([values.sum(), abs(values).sum(), len(values)], golden[f"{name}/pixel_sum_abs_sum"], rtol=1e-12)


def test_only_a_text_gets_the_blank_image(preprocessor: Preprocessor) -> None:
    blanks = {
        name: [m.is_blank for m in preprocessor.prepare(item_from_json(line, GOLDEN)).media] for name, line in LINES.items()
    }
    assert [name for name, flags in blanks.items() if any(flags)] == ["caption", "question"]
