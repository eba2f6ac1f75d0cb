"""The checkpoint that ships: its size, and that it retrieves, in float32 and rounded to 16 bit."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from plume_export import Embedder
from plume_export.builders.onnxruntime.onnxruntime_bundle import compile_for_onnxruntime
from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.evaluation.agreement import compare_rankings
from plume_export.evaluation.dataset import RetrievalTask, read_dataset, select_tasks
from plume_export.evaluation.metrics import measure_quality
from plume_export.evaluation.ranking import TaskRanking, rank_tasks
from plume_export.pipeline import ModelOptions, export_checkpoint, open_checkpoint
from plume_export.plume_tiny.sample_data import write_sample_data
from plume_export.runtime.onnx_reference import OnnxReference
from plume_export.samples import PLUME_TINY, plume_tiny_directory
from plume_export.spec import Precision
from plume_export.weight_names import expected_tensors

from ..conftest import WITHOUT_CALIBRATION

pytestmark = pytest.mark.slow

RECALL_FLOORS = {
    "text-to-image": 0.8,
    "image-to-text": 0.6,
    "composed-image": 0.6,
    "text-to-video": 0.6,
    "text-to-page": 0.6,
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[RetrievalTask]:
    output = tmp_path_factory.mktemp("sample") / "data"
    write_sample_data(output)
    return read_dataset(output / "evaluation.jsonl")


def exported(directory: Path, precision: Precision) -> Bundle:
    checkpoint = open_checkpoint(PLUME_TINY, ModelOptions())
    return export_checkpoint(checkpoint, directory / precision, WITHOUT_CALIBRATION(precision), lambda _: None)


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("bundles"), "fp16")


@pytest.fixture(scope="module")
def fp32_rankings(tmp_path_factory: pytest.TempPathFactory, tasks: list[RetrievalTask]) -> list[TaskRanking]:
    directory = tmp_path_factory.mktemp("bundles")
    bundle = compile_for_onnxruntime(exported(directory, "fp32"), directory / "cpu")
    with Embedder(bundle) as embedder:
        return rank_tasks(embedder, tasks, batch_size=32, on_error="fail")


def test_it_is_small() -> None:
    checkpoint = open_checkpoint(PLUME_TINY, ModelOptions())
    assert sum(int(np.prod(shape)) for shape in expected_tensors(checkpoint.model).values()) <= 4_000_000
    assert sum(file.stat().st_size for file in plume_tiny_directory().iterdir()) <= 10_000_000
    transition = checkpoint.model.transition
    assert (transition.experts, transition.top_k, checkpoint.model.rollout.latent_steps) == (4, 2, 8)


def test_it_retrieves_what_training_never_saw(fp32_rankings: list[TaskRanking]) -> None:
    recalls = {ranking.task: measure_quality(ranking).metrics["recall@1"].mean for ranking in fp32_rankings}
    assert recalls.keys() == RECALL_FLOORS.keys()
    for task, floor in RECALL_FLOORS.items():
        assert recalls[task] >= floor, recalls


def test_fp16_in_onnxruntime_agrees(fp16: Bundle, tasks: list[RetrievalTask], fp32_rankings: list[TaskRanking]) -> None:
    with Embedder(fp16) as embedder:
        rankings = rank_tasks(embedder, tasks, batch_size=32, on_error="fail")
    for before, after in zip(fp32_rankings, rankings, strict=True):
        recalls = [measure_quality(ranking).metrics["recall@1"].mean for ranking in (before, after)]
        assert abs(recalls[0] - recalls[1]) <= 0.005
        assert compare_rankings(before, after).top_1_agreement >= 0.99


def test_fp16_rounded_after_every_operator_agrees(
    fp16: Bundle, tasks: list[RetrievalTask], fp32_rankings: list[TaskRanking]
) -> None:
    """On the first queries of one task, its pool whole; plume-tiny's page has a larger run."""
    some = select_tasks(tasks, ["image-to-text"], 12)
    with Embedder(fp16, backend=OnnxReference(fp16)) as embedder:
        rankings = rank_tasks(embedder, some, batch_size=32, on_error="fail")
    before = {ranking.task: ranking for ranking in fp32_rankings}
    for ranking in rankings:
        comparison = compare_rankings(before[ranking.task], ranking)
        assert comparison.queries == 12
        assert comparison.top_1_agreement == 1.0
        assert comparison.rank_correlation >= 0.99


def test_it_is_the_default_and_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["build", "--precision", "fp32", "--output", str(tmp_path / "bundle")])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("plume-tiny, a small sample model") == 1
    assert "parity passed" in result.stdout
