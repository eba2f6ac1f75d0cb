"""`plume-export evaluate` as a user types it, on a small bundle of random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from plume_export import Embedder
from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.evaluation.dataset import read_dataset
from plume_export.evaluation.ranking import rank_tasks

COLOURS = ("red", "green", "blue", "white")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Pictures that are their own answer, so that even random weights find them; and texts, which they need not find."""
    lines = []
    for name in COLOURS:
        Image.new("RGB", (56, 56), name).save(tmp_path / f"{name}.png")
        lines.append({"task": "copy", "id": name, "candidate": {"image": f"{name}.png"}})
        lines.append({"task": "copy", "id": name, "query": {"image": f"{name}.png"}, "positive": name})
        lines.append({"task": "text", "id": name, "candidate": {"image": f"{name}.png"}})
        lines.append({"task": "text", "id": name, "query": {"text": name}, "positive": name, "candidates": ["red", name]})
    lines[3]["candidates"] = ["red", "blue"]  # red was there twice
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_table_and_json_agree(tiny_cpu: Bundle, dataset: Path) -> None:
    table = run("evaluate", tiny_cpu.path, "--dataset", dataset)
    assert table.exit_code == 0, table.output
    report = json.loads(run("evaluate", tiny_cpu.path, "--dataset", dataset, "--json").stdout)
    tasks = {task["task"]: task for task in report["evaluated"]["tasks"]}
    assert tasks["copy"]["metrics"]["recall@1"]["mean"] == 1.0
    assert tasks["copy"]["pool"] == 4
    assert tasks["text"]["pool"] == 2
    assert report["compared"] is None
    for task in tasks.values():
        assert f"{task['metrics']['mrr']['mean']:.3f}" in table.stdout


def test_a_bundle_agrees_with_itself(tiny_cpu: Bundle, tiny_fp32: Bundle, dataset: Path) -> None:
    result = run("evaluate", tiny_cpu.path, "--dataset", dataset, "--compare", tiny_fp32.path, "--json")
    report = json.loads(result.stdout)
    assert report["compared"]["backend"] == "onnx"
    for task in report["comparison"]:
        assert task["top_1_agreement"] == 1.0
        assert task["rank_correlation"] == pytest.approx(1.0)


@pytest.mark.slow
def test_bundles_of_different_checkpoints_are_said_so(
    tiny_cpu: Bundle, tiny_fp32: Bundle, golden_bundle: Bundle, dataset: Path
) -> None:
    arguments = ("evaluate", tiny_cpu.path, "--dataset", dataset, "--task", "copy", "--limit", 1, "--compare")
    different, same = run(*arguments, golden_bundle.path), run(*arguments, tiny_fp32.path)
    assert different.exit_code == same.exit_code == 0
    assert "the bundles are of different checkpoints" in different.stderr
    assert "different checkpoints" not in same.stderr
    report = json.loads(run(*arguments, golden_bundle.path, "--json").stdout)
    assert report["same_checkpoint"] is False
    assert set(report["comparison"][0]["changes"]["recall@1"]) == {"mean", "low", "high"}


def test_how_pictures_were_read_is_told_and_recorded(tiny_cpu: Bundle, dataset: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(dataset.with_name("red.png")) as red:
        red.save(dataset.with_name("red.png"), exif=exif)
    arguments = ("evaluate", tiny_cpu.path, "--dataset", dataset, "--task", "copy", "--json")
    result, upright = run(*arguments), run(*arguments, "--exif-transpose", "--video-frames", 8)
    assert "red.png has an EXIF rotation" in result.stderr
    assert "EXIF" not in upright.stderr
    defaults = {"exif_transpose": False, "video_frames": None, "video_fps": None}
    assert json.loads(result.stdout)["media"] == defaults
    assert json.loads(upright.stdout)["media"] == defaults | {"exif_transpose": True, "video_frames": 8}
    refused = run(*arguments, "--video-frames", 7)
    assert refused.exit_code == 2
    assert "video_frames is 7" in refused.stderr


def test_a_missing_picture_is_named_before_the_work(tiny_cpu: Bundle, dataset: Path) -> None:
    (dataset.parent / "blue.png").unlink()
    result = run("evaluate", tiny_cpu.path, "--dataset", dataset)
    assert result.exit_code == 1
    assert f"{dataset} line 10, query blue: {dataset.parent / 'blue.png'} does not exist" in result.stderr


def test_a_shorter_rollout_is_taken(tiny_cpu: Bundle, dataset: Path) -> None:
    full, none = (
        run("evaluate", tiny_cpu.path, "--dataset", dataset, "--steps", steps, "--task", "text", "--json") for steps in (8, 0)
    )
    assert full.exit_code == none.exit_code == 0
    assert json.loads(full.stdout)["evaluated"]["tasks"][0]["queries"] == 4


def test_steps_reach_the_rollout(tiny_cpu: Bundle, dataset: Path) -> None:
    tasks = read_dataset(dataset)
    scores = []
    for steps in (8, 0):
        with Embedder(tiny_cpu, steps=steps) as embedder:
            scores.append(rank_tasks(embedder, tasks, batch_size=8, on_error="fail")[1].queries[0].scores)
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


@pytest.mark.slow
def test_rounded_takes_a_portable_bundle(tiny_cpu: Bundle, tiny_fp16: Bundle, dataset: Path) -> None:
    refused = run("evaluate", tiny_cpu.path, "--dataset", dataset, "--rounded")
    assert refused.exit_code == 1
    assert "portable bundle" in refused.stderr
    arguments = ("--rounded", "--task", "copy", "--limit", 2, "--compare", tiny_cpu.path, "--json")
    report = json.loads(run("evaluate", tiny_fp16.path, "--dataset", dataset, *arguments).stdout)
    assert report["evaluated"]["backend"] == "rounded after every operator"
    assert report["comparison"][0]["queries"] == 2
    assert report["comparison"][0]["top_1_agreement"] == 1.0


def test_bad_media_fail_or_are_counted(tiny_cpu: Bundle, dataset: Path) -> None:
    (dataset.parent / "green.png").write_text("no picture")
    failed = run("evaluate", tiny_cpu.path, "--dataset", dataset)
    assert failed.exit_code == 1
    assert "green.png" in failed.stderr
    skipping = run("evaluate", tiny_cpu.path, "--dataset", dataset, "--on-error", "skip")
    assert "copy: skipped candidate green: " in skipping.stderr
    report = json.loads(run("evaluate", tiny_cpu.path, "--dataset", dataset, "--on-error", "skip", "--json").stdout)
    copy = report["evaluated"]["tasks"][0]
    assert (copy["queries"], copy["pool"], len(copy["skipped"])) == (3, 3, 2)  # the candidate and its query
    text = report["evaluated"]["tasks"][1]
    assert (text["queries"], len(text["skipped"])) == (3, 2)  # the candidate, and the query that lost its only answer


def test_a_task_with_nothing_left_is_an_error(tiny_cpu: Bundle, dataset: Path) -> None:
    for name in COLOURS:
        (dataset.parent / f"{name}.png").unlink()
    result = run("evaluate", tiny_cpu.path, "--dataset", dataset, "--on-error", "skip")
    assert result.exit_code == 1
    assert "Every query of task 'copy' was skipped" in result.stderr


def test_errors_come_before_the_work(tiny_cpu: Bundle, dataset: Path, tmp_path: Path) -> None:
    assert "none.jsonl" in run("evaluate", tiny_cpu.path, "--dataset", tmp_path / "none.jsonl").stderr
    assert "no task 'x'" in run("evaluate", tiny_cpu.path, "--dataset", dataset, "--task", "x").stderr
    missing = run("evaluate", tiny_cpu.path, "--dataset", dataset, "--compare", tmp_path / "none")
    assert missing.exit_code == 1
    assert "No bundle at" in missing.stderr
