"""What plume-tiny is asked: scenes, tasks, and the sample data on disk."""

import hashlib
from pathlib import Path
from random import Random

import numpy as np
import pytest

from plume_export.errors import PlumeExportError
from plume_export.evaluation.dataset import read_dataset
from plume_export.plume_tiny.sample_data import POOLS, held_out_scenes, write_sample_data
from plume_export.plume_tiny.scenes import COLOURS, SHAPES, Figure, Several, Single, sample_edit
from plume_export.plume_tiny.tasks import TASKS, Task, draw_answer, draw_query, sample_scene


def sampled(task: Task, split: str, count: int = 1500) -> set[object]:
    random = Random(f"{task} {split}")
    return {sample_scene(task, random, split) for _ in range(count)}  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_training_never_meets_an_evaluated_scene(task: Task) -> None:
    train = sampled(task, "train")
    assert not any(scene.is_held_out for scene in train)
    evaluated = held_out_scenes(task, POOLS[task][0])
    assert len(set(evaluated)) == POOLS[task][0]
    assert all(scene.is_held_out for scene in evaluated)


def test_every_colour_and_shape_is_trained_and_one_colour_of_each_shape_is_held_out() -> None:
    figures = [Figure(colour, shape) for colour in COLOURS for shape in SHAPES]
    held_out = [figure for figure in figures if figure.is_held_out]
    assert sorted(figure.shape for figure in held_out) == sorted(SHAPES)
    assert len({figure.colour for figure in held_out}) == len(SHAPES)


def test_an_edit_changes_one_property() -> None:
    random = Random(0)
    for result in sampled("composed-image", "train", 200):
        assert isinstance(result, Single | Several)
        source = sample_edit(result, random).source
        arrangement = "place" if isinstance(result, Single) else "count"
        differences = [
            source.figure.colour != result.figure.colour,
            source.figure.shape != result.figure.shape,
            source.size != result.size,
            getattr(source, arrangement) != getattr(result, arrangement),
        ]
        assert sum(differences) == 1


def test_training_draws_no_held_out_picture_as_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    from plume_export.plume_tiny import tasks

    drawn = []
    original = tasks.draw_picture
    monkeypatch.setattr(tasks, "draw_picture", lambda scene, random: drawn.append(scene) or original(scene, random))
    random = Random(0)
    for scene in sampled("composed-image", "train", 200):
        draw_query("composed-image", scene, random, "train")  # type: ignore[arg-type]
    assert drawn
    assert not any(scene.is_held_out for scene in drawn)


@pytest.mark.parametrize("task", TASKS)
def test_drawings_follow_the_seed_and_vary(task: Task) -> None:
    scene = held_out_scenes(task, 1)[0]

    def pixels(seed: int) -> np.ndarray:
        draw = draw_query if task == "image-to-text" else draw_answer
        item = draw(task, scene, Random(seed), "held-out")
        return np.stack([np.asarray(image) for image in item.video or item.images])  # type: ignore[union-attr]

    assert (pixels(1) == pixels(1)).all()
    assert pixels(1).shape != pixels(2).shape or (pixels(1) != pixels(2)).any()


def digest(directory: Path) -> str:
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    parts = [str(file.relative_to(directory)).encode() + file.read_bytes() for file in files]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.slow
def test_sample_data_is_a_dataset_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sample_data(tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    tasks = read_dataset(tmp_path / "one" / "evaluation.jsonl")
    assert {task.name: len(task.candidates) for task in tasks} == {task: pool for task, (pool, _) in POOLS.items()}
    for task in tasks:
        assert len(task.queries) >= len(task.candidates)
        for content in (list(task.queries.values())[-1].input, *list(task.candidates.values())[:3]):
            content.read()
    assert len(list((tmp_path / "one" / "pictures").glob("*.png"))) == 240
    assert len(list((tmp_path / "one" / "pages").glob("*.png"))) == 72


def test_sample_data_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").write_text("mine")
    with pytest.raises(PlumeExportError, match="already exists"):
        write_sample_data(tmp_path / "here")
    (tmp_path / "file").write_text("")
    with pytest.raises(PlumeExportError, match="file is a file"):
        write_sample_data(tmp_path / "file" / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here"]
