"""What `evaluate` prints of a comparison, and which inputs it misses before the work."""

import json
from pathlib import Path

import msgspec
import pytest
from PIL import Image
from rich.console import Console

from plume_export.errors import InputError
from plume_export.evaluation.agreement import ChangedAnswer, TaskComparison
from plume_export.evaluation.dataset import read_dataset
from plume_export.evaluation.evaluate import model_differences
from plume_export.evaluation.metrics import MEASURES, Estimate, TaskQuality
from plume_export.evaluation.quality_report import (
    BundleQuality,
    EvaluationReport,
    changed_lines,
    checkpoint_line,
    comparison_table,
    skipped_lines,
)
from plume_export.evaluation.ranking import check_files, distinct_inputs
from plume_export.spec import PLUME_2B

METRICS = dict.fromkeys(MEASURES, Estimate(0.5, 0.25, 0.75))
CHANGES = dict.fromkeys(MEASURES, Estimate(0.0033, -0.001, 0.0077))


def quality(checkpoint: str) -> BundleQuality:
    return BundleQuality("b", "0" * 64, checkpoint, "onnx", "fp32", [TaskQuality("t", 60, 9.0, {}, METRICS)])


def report(changed: int = 0, *, same: bool | None = True, names: tuple[str, str] = ("a", "a")) -> EvaluationReport:
    answers = [ChangedAnswer(f"q{index}", ("c0",), "c1", "c2") for index in range(changed)]
    comparisons = [TaskComparison(task, 60, 0.9, 0.99, CHANGES, answers) for task in ("t", "u")]
    return EvaluationReport(quality(names[0]), quality(names[1]), comparisons, same)


@pytest.mark.parametrize(
    ("changed", "printed", "last"), [(0, 0, None), (10, 20, None), (11, 21, "and 2 more"), (1000, 21, "and 1,980")]
)
def test_twenty_changed_answers_are_printed(changed: int, printed: int, last: str | None) -> None:
    lines = changed_lines(report(changed))
    assert len(lines) == printed
    if printed:
        assert lines[0] == "t q0: c1 -> c2 (correct: c0)"
    if last is not None:
        assert lines[-1].startswith(last)
        assert lines[-1].endswith("(--json lists all)")


def test_ids_cannot_break_a_line() -> None:
    answer = ChangedAnswer("q\n1", tuple("abcde"), "\x1b[2J", "c2")
    changed = EvaluationReport(quality("a"), quality("a"), [TaskComparison("t", 1, 0.0, None, CHANGES, [answer])])
    assert changed_lines(changed) == [r"t q\n1: \x1b[2J -> c2 (correct: a, b, c and 2 more)"]


def test_what_was_skipped_is_said_once_and_in_a_line() -> None:
    reasons = {f"candidate {index}": "no image\n  fix: repair it" for index in range(25)}
    skipping = BundleQuality("b", "0" * 64, "a", "onnx", "fp32", [TaskQuality("t", 60, 9.0, reasons, METRICS)])
    lines = skipped_lines(EvaluationReport(skipping, skipping))
    assert lines[0] == "t: skipped candidate 0: no image Fix: repair it"
    assert lines[20:] == ["and 5 more (--json lists all)"]


def test_a_change_has_its_interval() -> None:
    console = Console(width=110)
    with console.capture() as capture:
        console.print(comparison_table(report()))
    assert "+0.0033 [-0.0010, +0.0077]" in capture.get()
    assert "paired bootstrap" in capture.get()


def test_different_checkpoints_are_said_so() -> None:
    assert checkpoint_line(report()) is None
    assert checkpoint_line(report(same=True, names=("a", "b"))) is None  # one checkpoint that was moved
    assert checkpoint_line(report(same=None)) is None
    different, perhaps = (checkpoint_line(report(same=same, names=("new", "old"))) for same in (False, None))
    assert different is not None
    assert "are of different checkpoints (old and new)" in different
    assert perhaps is not None
    assert "name different checkpoints (old and new)" in perhaps
    assert checkpoint_line(report(same=False)) is not None
    assert checkpoint_line(EvaluationReport(quality("a"))) is None


@pytest.mark.parametrize(
    "missing", [{"image": "none.png"}, {"image": ["here.png", "none.png"]}, {"video": "none.mp4"}, {"video": ["none.png"]}]
)
def test_a_missing_picture_names_line_and_id(tmp_path: Path, missing: dict[str, object]) -> None:
    Image.new("RGB", (28, 28)).save(tmp_path / "here.png")
    lines = [
        {"id": "c1", "candidate": {"image": "here.png"}},
        {"id": "c2", "candidate": {"text": "a"} | missing},
        {"id": "unused", "candidate": {"image": "also-none.png"}},
        {"id": "q1", "query": {"text": "b"}, "positive": "c1", "candidates": ["c1", "c2"]},
    ]
    file = tmp_path / "set.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(
        InputError, match=r"set\.jsonl line 2, candidate c2: .*none\.\w+ does not exist(.|\n)*relative to the dataset"
    ):
        check_files(distinct_inputs(read_dataset(file)))
    lines[1]["candidate"] = {"text": "a"}
    file.write_text("\n".join(map(json.dumps, lines)))
    check_files(distinct_inputs(read_dataset(file)))


def test_models_that_differ_in_a_setting_are_named() -> None:
    other = msgspec.structs.replace(PLUME_2B, preprocess=msgspec.structs.replace(PLUME_2B.preprocess, max_pixels=1_000_000))
    assert model_differences(PLUME_2B, PLUME_2B) == []
    assert model_differences(PLUME_2B, other) == ["preprocess.max_pixels"]
    line = checkpoint_line(msgspec.structs.replace(report(), model_differences=model_differences(PLUME_2B, other)))
    assert line is not None
    assert "models differ in preprocess.max_pixels:" in line
