"""Drawn examples to the tensors of one training step."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from plume_export.inputs import Item, PreparedInput, Preprocessor, normalised_together, patch_positions
from plume_export.plume_tiny.tasks import Task, draw_answer, draw_query, sample_scene
from plume_export.spec import ModelSpec


@dataclass(frozen=True)
class Prompts:
    """Prompts of mixed lengths, padded on the right; `media` holds images of one size together."""

    media: list[tuple[Tensor, Tensor]]  # patches [frames, patches, patch_values], patch_positions [patches, 2]
    input_ids: Tensor  # [batch, tokens]
    visual_index: Tensor  # [batch, tokens]
    position_ids: Tensor  # [3, batch, tokens]
    token_count: Tensor  # [batch]
    anchor_index: Tensor  # [batch]


@dataclass(frozen=True)
class Step:
    """What one training step draws. Extra queries are texts: cheap negatives for costly answers."""

    task: Task
    examples: int
    extra_queries: int = 0


@dataclass(frozen=True)
class Batch:
    """One step: the queries of its examples, then queries that nothing in the batch answers, and the answers."""

    task: Task
    queries: Prompts
    answers: Prompts
    is_answer: Tensor  # [queries, answers] bool: two examples of the same scene answer each other too


class Batches(Dataset[Batch]):
    """Batch `index` of a seeded training run."""

    def __init__(self, tokenizer_json: str, model: ModelSpec, plan: Sequence[Step], seed: int) -> None:
        self._tokenizer_json, self._model, self._plan, self._seed = tokenizer_json, model, plan, seed
        self._preprocessor: Preprocessor | None = None

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Batch:
        if self._preprocessor is None:  # once a worker process
            self._preprocessor = Preprocessor(self._tokenizer_json, self._model)
        step = self._plan[index]
        random = Random(f"{self._seed} {index}")
        scenes = [sample_scene(step.task, random, "train") for _ in range(step.examples + step.extra_queries)]
        answered = scenes[: step.examples]
        return Batch(
            task=step.task,
            queries=self._prompts([draw_query(step.task, scene, random, "train") for scene in scenes]),
            answers=self._prompts([draw_answer(step.task, scene, random, "train") for scene in answered]),
            is_answer=torch.tensor([[scene == other for other in answered] for scene in scenes]),
        )

    def _prompts(self, items: Sequence[Item]) -> Prompts:
        assert self._preprocessor is not None
        return prompts_from_inputs([self._preprocessor.prepare(item) for item in items], self._model)


def prompts_from_inputs(inputs: Sequence[PreparedInput], model: ModelSpec) -> Prompts:
    """Pad the prompts. Every input has one medium."""
    media, first_tokens = _media_from_inputs(inputs, model)
    shape = (len(inputs), max(item.token_count for item in inputs))
    input_ids, visual_index = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    position_ids = np.zeros((3, *shape), np.int64)
    for row, item in enumerate(inputs):
        tokens = item.token_count
        input_ids[row, :tokens] = item.input_ids
        visual_index[row, :tokens] = np.where(item.visual_index >= 0, item.visual_index + first_tokens[row], -1)
        position_ids[:, row, :tokens] = item.position_ids
    return Prompts(
        media=media,
        input_ids=torch.from_numpy(input_ids),
        visual_index=torch.from_numpy(visual_index),
        position_ids=torch.from_numpy(position_ids),
        token_count=torch.tensor([item.token_count for item in inputs]),
        anchor_index=torch.tensor([item.anchor_index for item in inputs]),
    )


def _media_from_inputs(inputs: Sequence[PreparedInput], model: ModelSpec) -> tuple[list[tuple[Tensor, Tensor]], list[int]]:
    """Return the media by size, and where the visual embeddings of every input start. Blank images are one and the same."""
    media = [item.media[0] for item in inputs]
    blank_rows = [row for row, medium in enumerate(media) if medium.is_blank]
    rows_by_size: dict[tuple[int, int], list[int]] = {}
    for row in [row for row, medium in enumerate(media) if not medium.is_blank] + blank_rows[:1]:
        rows_by_size.setdefault(media[row].grid[1:], []).append(row)
    first_tokens = [0] * len(inputs)
    tensors: list[tuple[Tensor, Tensor]] = []
    next_token = 0
    for size, rows in rows_by_size.items():
        patches = normalised_together([media[row].patches for row in rows])
        positions = patch_positions((1, *size), model.vision.merge_size)
        tensors.append((torch.from_numpy(patches), torch.from_numpy(positions)))
        for row in rows:
            first_tokens[row] = next_token
            next_token += media[row].patches.shape[0] * media[row].patches.shape[1] // model.vision.merged_patches
    for row in blank_rows:
        first_tokens[row] = first_tokens[blank_rows[0]]
    return tensors, first_tokens
