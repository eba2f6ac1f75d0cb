"""`plume-export bench` as a user types it. What is checked is what is said, never how fast it was."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from plume_export.bench.bench_options import BenchOptions
from plume_export.bench.candidates import setup_from_options
from plume_export.bench.html_report import page_from_report
from plume_export.bench.report import BenchReport
from plume_export.bench.text_report import latency_table
from plume_export.bundle import MANIFEST, Bundle, write_manifest
from plume_export.cli import main
from plume_export.recipe import AxisRange, ShapeRanges

from ..cli.failures import assert_fails, assert_is_usage

QUICK = ("--runs", 1, "--threads", 1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("inputs") / "mine.jsonl"
    file.write_text('{"id": "short", "text": "two dogs"}\n{"id": "long", "text": "two dogs on a beach"}\n')
    return file


@pytest.fixture(scope="module")
def against_pytorch(tiny_cpu: Bundle, tiny_checkpoint: Path, inputs: Path) -> dict[str, Any]:
    arguments = (
        "--against",
        "pytorch",
        "--checkpoint",
        tiny_checkpoint,
        "--inputs",
        inputs,
        "--cold-starts",
        0,
        "--batch",
        "2",
    )
    result = run(tiny_cpu.path, *arguments, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.fixture(scope="module")
def with_page(tiny_cpu: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, str]:
    page = tmp_path_factory.mktemp("page") / "report.html"
    result = run(tiny_cpu.path, "--against", tiny_cpu.path, *QUICK, "--cold-starts", 1, "--html", page)
    return result, page.read_text()


@pytest.mark.slow
def test_ratios_are_those_of_the_medians(against_pytorch: dict[str, Any]) -> None:
    own, *others = against_pytorch["candidates"]
    assert others == ["pytorch-fp32", "pytorch-bf16"]
    medians = {(one["input"], one["candidate"]): one["ms"]["p50"] for one in against_pytorch["latency"]}
    assert len(against_pytorch["ratios"]) == 4
    for ratio in against_pytorch["ratios"]:
        expected = medians[ratio["input"], ratio["candidate"]] / medians[ratio["input"], own]
        assert ratio["times_faster"] == pytest.approx(expected)


@pytest.mark.slow
def test_every_candidate_is_compared_with_the_baseline(against_pytorch: dict[str, Any]) -> None:
    medians = {(one["input"], one["candidate"]): one["ms"]["p50"] for one in against_pytorch["latency"]}
    for one in against_pytorch["latency"]:
        if one["candidate"] == "pytorch-fp32":
            assert one["against_baseline"] is None
        else:
            expected = medians[one["input"], "pytorch-fp32"] / one["ms"]["p50"]
            assert one["against_baseline"]["times_faster"] == pytest.approx(expected)


@pytest.mark.slow
def test_the_table_tells_bundles_from_their_baseline(against_pytorch: dict[str, Any]) -> None:
    report = msgspec.convert(against_pytorch, BenchReport)
    table = latency_table(report)
    assert table.columns[-2:] == ("against pytorch-fp32", "cosine")
    assert [row[-2] != "" for row in table.rows] == [True, False, True] * 2  # bundle, pytorch-fp32, pytorch-bf16
    two = msgspec.structs.replace(report, candidates=report.candidates[:2], latency=report.latency[:2])
    assert "against pytorch-fp32" not in latency_table(two).columns


@pytest.mark.slow
def test_cosines_are_with_pytorch(against_pytorch: dict[str, Any]) -> None:
    assert against_pytorch["baseline"] == "pytorch-fp32"
    for one in against_pytorch["latency"]:
        assert one["cosine"] == pytest.approx(1, abs=1e-5 if one["candidate"] != "pytorch-bf16" else 1e-2)


@pytest.mark.slow
def test_stages_are_a_bundle_s_and_make_up_its_time(against_pytorch: dict[str, Any]) -> None:
    for one in against_pytorch["latency"]:
        names = set(one["stages_ms"])
        assert names == (set() if one["candidate"].startswith("pytorch") else {"preprocess", "prefill", "rollout", "other"})


@pytest.mark.slow
def test_throughput_has_both_sets_and_pytorch_one_at_a_time(against_pytorch: dict[str, Any]) -> None:
    sizes = {(one["inputs"], one["candidate"]): one["batch_size"] for one in against_pytorch["throughput"]}
    own = against_pytorch["candidates"][0]
    for inputs in ("texts", "mine.jsonl"):
        assert sizes[inputs, own] == 2
        assert sizes[inputs, "pytorch-fp32"] == sizes[inputs, "pytorch-bf16"] == 1
    assert {one["count"] for one in against_pytorch["throughput"]} == {8, 2}


@pytest.mark.slow
def test_every_input_has_a_rollout_and_its_limits(against_pytorch: dict[str, Any]) -> None:
    assert [one["steps"] for one in against_pytorch["rollout"]] == [8, 8]
    stages = [(one["input"], one["stage"]) for one in against_pytorch["roofline"]]
    assert stages == [(name, stage) for name in ("short", "long") for stage in ("prefill", "latent step", "readout")]
    for one in against_pytorch["roofline"]:
        assert one["share_of_limit"] == pytest.approx(one["limit_ms"] / one["measured_ms"])


@pytest.mark.slow
def test_environment_says_what_and_where(against_pytorch: dict[str, Any], tiny_cpu: Bundle) -> None:
    assert against_pytorch["environment"]["threads"] == 1
    assert {"python", "torch", "onnxruntime"} <= set(against_pytorch["environment"]["versions"])
    assert against_pytorch["bundles"][0]["sha256"] == tiny_cpu.sha256


@pytest.mark.slow
def test_table_and_page(with_page: tuple[Result, str]) -> None:
    result, page = with_page
    assert result.exit_code == 0, result.output
    for title in ("latency, end to end", "throughput", "Cold start:", "rollout of", "and this machine's limits"):
        assert title in result.stdout
    assert "tiny-cpu (2)" in result.stdout
    assert page.count("<svg ") == 3


@pytest.mark.slow
def test_page_needs_nothing_beside_it(with_page: tuple[Result, str]) -> None:
    page = re.sub(r'xmlns(:\w+)?="[^"]*"', "", with_page[1])
    assert not re.findall(r"https?://", page)
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_a_sweep_is_shown_with_what_it_means(against_pytorch: dict[str, Any]) -> None:
    spread = {"p50": 1.0, "p95": 2.0}
    points = [
        {"size": size, "prompt_tokens": size, "visual_tokens": 4, "ms": {"p50": 5 + size / 50, "p95": 99.0}, "stages_ms": {}}
        for size in (64, 128, 256)
    ]
    curve = dict.fromkeys(("fixed_ms", "linear_ms", "quadratic_ms", "worst_error", "cheapest_ms_per_unit"), 0.02)
    sweep = {"over": "prompt tokens", "points": points, "curve": {**curve, "cheapest_size": 200.0, "rises_at": 210.0}}
    points[0]["stages_ms"] = points[1]["stages_ms"] = points[2]["stages_ms"] = {"prefill": spread}
    page = page_from_report(msgspec.convert({**against_pytorch, "sweeps": [sweep]}, BenchReport))
    assert page.count("<svg ") == 4
    assert "a token is cheapest at 200 prompt tokens, 20 µs, and costs 25 % more from 210 on" in page


def test_pytorch_needs_a_checkpoint_of_the_same_dimensions(tiny_cpu: Bundle) -> None:
    assert_is_usage(run(tiny_cpu.path, "--against", "pytorch"), "needs the checkpoint", "fix: pass --checkpoint")
    other = run(tiny_cpu.path, "--against", "pytorch", "--checkpoint", "plume-tiny")
    assert_fails(other, "plume-tiny is not the bundle's checkpoint", "its vision is")
    assert_is_usage(run(tiny_cpu.path, "--checkpoint", "plume-tiny"), "add --against pytorch")


def copy_with(bundle: Bundle, directory: Path, **changes: object) -> Path:
    """Copy a bundle and change fields of its manifest."""
    shutil.copytree(bundle.path, directory)
    (directory / MANIFEST).unlink()
    write_manifest(directory, msgspec.structs.replace(bundle.manifest, files={}, **changes))
    return directory


def test_unknown_opponents_and_sizes_are_refused(tiny_cpu: Bundle, tmp_path: Path) -> None:
    assert_fails(run(tiny_cpu.path, "--against", "jax"), "'jax'", "fix: pass one of pytorch")
    assert_is_usage(run(tiny_cpu.path, "--batch", "1,x"), "'1,x'", "--batch 1,8")
    assert_fails(run(tmp_path / "none"), "No bundle at")


def test_another_model_is_no_opponent(tiny_cpu: Bundle, tmp_path: Path) -> None:
    model = tiny_cpu.manifest.model
    other_router = msgspec.structs.replace(model, rollout=msgspec.structs.replace(model.rollout, router_context="none"))
    other = copy_with(tiny_cpu, tmp_path / "other", model=other_router)
    assert_fails(run(tiny_cpu.path, "--against", other), "another model", "its rollout is")


def test_a_batch_over_the_bundle_s_limit_is_refused(tiny_cpu: Bundle, tmp_path: Path) -> None:
    limits = ShapeRanges(AxisRange(1, 1, 4), AxisRange(16, 64, 2048), AxisRange(4, 4, 1024))
    limited = copy_with(tiny_cpu, tmp_path / "limited", limits=limits)
    assert_fails(run(limited, "--batch", "1,8"), "accepts at most 4")


def test_bad_files_are_refused_before_any_work(tiny_cpu: Bundle, tmp_path: Path) -> None:
    assert_fails(run(tiny_cpu.path, "--html", tmp_path / "none" / "report.html"), "cannot be written")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "gone", "image": "gone.png"}\n')
    assert_fails(run(tiny_cpu.path, "--inputs", bad), "'gone'", "does not exist")
    bad.write_text('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n')
    assert_fails(run(tiny_cpu.path, "--inputs", bad), "the id 'a' more than once")
    bad.write_text("\n")
    assert_fails(run(tiny_cpu.path, "--inputs", bad), "has no inputs")


@pytest.mark.parametrize(
    ("against", "expected"),
    [
        (("pytorch",), ["pytorch-fp32", "pytorch-bf16"]),
        (("pytorch-bf16",), ["pytorch-bf16"]),
        (("pytorch-bf16", "pytorch"), ["pytorch-fp32", "pytorch-bf16"]),
    ],
)
def test_one_form_of_pytorch_may_be_named(
    tiny_cpu: Bundle, tiny_checkpoint: Path, against: tuple[str, ...], expected: list[str]
) -> None:
    setup = setup_from_options(BenchOptions(tiny_cpu.path, against, str(tiny_checkpoint)), threads=1)
    assert [candidate.name for candidate in setup.candidates[1:]] == expected
