"""The training code: what it trains is what is exported, and a short run learns."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from plume_tiny_training.batches import Batches, Step, prompts_from_inputs
from plume_tiny_training.initial import initial_tensors, write_initial_files
from plume_tiny_training.model import TrainablePlume
from plume_tiny_training.train import save_weights, train, training_plan

from plume_export.errors import PlumeExportError
from plume_export.inputs import Item, Preprocessor
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.plume_tiny.scenes import Scene, Split
from plume_export.plume_tiny.tasks import TASKS, Task, draw_answer, draw_query, sample_scene
from plume_export.reference import Reference, ReferenceProcessor

pytestmark = pytest.mark.slow


def test_the_trained_model_is_the_reference(tmp_path: Path) -> None:
    """One mixed batch through the trainable model, each of its items alone through the reference."""
    model = write_initial_files(tmp_path)
    plume = TrainablePlume(model, {name: tensor.half().float() for name, tensor in initial_tensors(model, seed=3).items()})
    save_weights(tmp_path, plume)
    checkpoint = open_checkpoint(str(tmp_path), ModelOptions())
    assert checkpoint.model == model
    random = Random(5)
    items: list[Item] = []
    for task in TASKS:
        scene = sample_scene(task, random, "train")
        items += [draw_query(task, scene, random, "train"), draw_answer(task, scene, random, "train")]
    preprocessor = Preprocessor((tmp_path / "tokenizer.json").read_text(), model)
    prompts = prompts_from_inputs([preprocessor.prepare(item) for item in items], model)
    with torch.no_grad():
        states, anchors, routing = plume.embed(prompts, torch.from_numpy(preprocessor.suffix_ids))
    embeddings = torch.nn.functional.normalize(states, dim=-1).numpy()
    reference = Reference(checkpoint.directory, checkpoint.tensors, model, dtype=torch.float32)
    processor = ReferenceProcessor(checkpoint.directory, model)
    for row, item in enumerate(items):
        expected = reference.stages(processor(item))
        assert np.abs(embeddings[row] - expected.embedding).max() <= 1e-5
        assert np.abs(anchors[row].numpy() - expected.anchor).max() <= 1e-4
        assert np.abs(routing[:, row].numpy() - expected.router_probabilities).max() <= 1e-5


def test_batches_hold_nothing_that_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plume_tiny_training import batches

    drawn: list[Scene] = []

    def recorded(task: Task, random: Random, split: Split) -> Scene:
        drawn.append(sample_scene(task, random, split))
        return drawn[-1]

    monkeypatch.setattr(batches, "sample_scene", recorded)
    model = write_initial_files(tmp_path)
    plan = [Step(task, 6) for task in TASKS] * 6
    for batch in map(Batches((tmp_path / "tokenizer.json").read_text(), model, plan, 0).__getitem__, range(len(plan))):
        assert len(batch.answers.token_count) == 6
    assert len(drawn) == 6 * len(plan)
    assert not any(scene.is_held_out for scene in drawn)


def test_training_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(PlumeExportError, match="is not empty"):
        train(tmp_path, seed=0, in_bfloat16=False, plan=[])
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_a_batch_follows_seed_and_index(tmp_path: Path) -> None:
    model = write_initial_files(tmp_path)
    tokenizer_json = (tmp_path / "tokenizer.json").read_text()
    plan = [Step("text-to-video", 3, extra_queries=2)] * 2
    one, same, other = (Batches(tokenizer_json, model, plan, seed) for seed in (0, 0, 1))
    assert torch.equal(one[1].answers.media[0][0], same[1].answers.media[0][0])
    assert not torch.equal(one[1].answers.media[0][0], one[0].answers.media[0][0])
    assert not torch.equal(one[1].answers.media[0][0], other[1].answers.media[0][0])
    assert one[0].is_answer.shape == (5, 3)
    assert one[0].is_answer.diagonal().all()


def test_a_short_run_learns_and_writes_a_checkpoint(tmp_path: Path) -> None:
    """Every task takes a step, and the loss on pictures falls."""
    lines: list[str] = []
    others = [Step(task, 4) for task in TASKS if task != "text-to-image"]
    plan = [Step("text-to-image", 24)] * 40 + others
    train(tmp_path / "out", seed=0, in_bfloat16=False, plan=plan, report=lines.append)
    losses = [float(line.split("text-to-image ")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.92 * losses[0]  # steps 20 and 40, averaged; chance stays within 2 %
    assert all(task in lines[-1] for task in TASKS)
    assert open_checkpoint(str(tmp_path / "out"), ModelOptions()).model.rollout.latent_steps == 8
    assert not list((tmp_path / "out").glob(".*"))


def test_the_plan_starts_with_pictures_and_holds_every_query_kind() -> None:
    plan = training_plan(0)
    assert {step.task for step in plan[:200]} == {"text-to-image"}
    assert {step.task for step in plan} == set(TASKS) - {"image-to-text"}  # the loss has both directions
    assert plan == training_plan(0) != training_plan(1)
