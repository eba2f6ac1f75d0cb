"""A padded batch through prefill in groups: every prompt once, little padding, and numbers where there are no tokens."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from plume_export.runtime.backend import Array
from plume_export.runtime.grouped_prefill import GroupedPrefill, PromptGroup, prompt_groups
from plume_export.spec import GraphSpec, TensorSpec

SPEC = GraphSpec(
    inputs=(
        TensorSpec("input_ids", "int64", ("batch", "tokens")),
        TensorSpec("position_ids", "int64", (3, "batch", "tokens")),
        TensorSpec("token_count", "int64", ("batch",)),
        TensorSpec("visual_embeddings", "float32", ("visual_tokens", 2)),
    ),
    outputs=(TensorSpec("state", "float32", ("batch", 2)), TensorSpec("keys", "float32", ("batch", 2, "tokens", 1))),
)


class Doubling:
    """A session whose keys are twice the token ids and whose states are the number of tokens; remembers its runs."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "DoublingBinding":
        assert all(array.flags.c_contiguous for array in (*inputs.values(), *outputs.values()))
        assert inputs["position_ids"].shape == (3, *inputs["input_ids"].shape)
        assert inputs["visual_embeddings"].shape == (5, 2)
        return DoublingBinding(self.shapes, inputs, outputs)

    def close(self) -> None:
        pass


class DoublingBinding:
    def __init__(self, shapes: list[tuple[int, ...]], inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._shapes, self._inputs, self._outputs = shapes, inputs, outputs

    def run(self) -> None:
        ids = self._inputs["input_ids"]
        self._shapes.append(ids.shape)
        self._outputs["keys"][...] = 2 * ids[:, None, :, None]
        self._outputs["state"][...] = self._inputs["token_count"][:, None]


def groups(token_counts: Sequence[int]) -> list[tuple[int, int, int]]:
    return [(group.rows.start, group.rows.stop, group.tokens) for group in prompt_groups(token_counts)]


@pytest.mark.parametrize(
    ("token_counts", "expected"),
    [
        ([100], [(0, 1, 100)]),
        ([100, 100, 100], [(0, 3, 100)]),
        ([100, 97, 60, 60], [(0, 2, 100), (2, 4, 60)]),
        ([60, 64, 62], [(0, 3, 64)]),
        ([60, 60, 60, 64], [(0, 3, 60), (3, 4, 64)]),  # three prompts would be padded by 12
        ([300, 300, 100], [(0, 1, 300), (1, 2, 300), (2, 3, 100)]),
        ([4000, 20], [(0, 1, 4000), (1, 2, 20)]),
    ],
)
def test_prompts_of_like_lengths_go_together(token_counts: list[int], expected: list[tuple[int, int, int]]) -> None:
    assert groups(token_counts) == expected


def test_groups_cover_a_batch_and_pad_little() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        token_counts = generator.integers(1, 700, generator.integers(1, 20)).tolist()
        found = list(prompt_groups(token_counts))
        assert [row for group in found for row in range(group.rows.start, group.rows.stop)] == list(range(len(token_counts)))
        for group in found:
            inside = token_counts[group.rows]
            assert group.tokens == max(inside)
            assert len(inside) == 1 or group.tokens * len(inside) <= 512
            assert sum(group.tokens - tokens for tokens in inside) <= 8 * (len(inside) - 1)


@pytest.mark.parametrize(
    ("token_counts", "runs"),
    [
        ([9, 9], [(2, 9)]),
        ([40, 3, 20], [(1, 40), (1, 3), (1, 20)]),
        ([40, 38, 12, 10], [(2, 40), (2, 12)]),
    ],
)
def test_what_a_batch_leaves_is_what_its_prompts_leave(token_counts: list[int], runs: list[tuple[int, int]]) -> None:
    batch, tokens = len(token_counts), max(token_counts)
    ids = np.arange(1, batch * tokens + 1).reshape(batch, tokens)
    inputs: dict[str, Array] = {
        "input_ids": ids,
        "position_ids": np.zeros((3, batch, tokens), np.int64),
        "token_count": np.array(token_counts),
        "visual_embeddings": np.zeros((5, 2), np.float32),
    }
    outputs: dict[str, Array] = {
        "state": np.full((batch, 2), np.nan, np.float32),
        "keys": np.full((batch, 2, tokens, 1), np.nan, np.float32),
    }
    session = Doubling()
    GroupedPrefill(session, SPEC).bind(inputs, outputs).run()
    assert session.shapes == runs
    is_token = np.arange(tokens) < np.array(token_counts)[:, None]
    keys = outputs["keys"][:, 0, :, 0]
    np.testing.assert_array_equal(keys[is_token], (2 * ids)[is_token])
    np.testing.assert_array_equal(outputs["state"][:, 0], token_counts)
    for group in prompt_groups(token_counts):
        assert (keys[group.rows, group.tokens :] == 0).all()
    assert np.isfinite(keys).all()


def test_a_group_names_its_rows() -> None:
    assert list(prompt_groups([5, 50])) == [PromptGroup(slice(0, 1), 5), PromptGroup(slice(1, 2), 50)]
