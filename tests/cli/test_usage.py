"""A wrong option or value is a usage error: exit code 2, in click's format. No file of these commands exists."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plume_export.cli import main

from .failures import assert_is_usage

EMBED = ("embed", "no-bundle", "--text", "a")
EVALUATE = ("evaluate", "no-bundle", "--dataset", "no.jsonl")
SEARCH = ("search", "no-bundle", "a text", "--in", "no-folder")
BENCH = ("bench", "no-bundle")
EXPORT = ("export", "--checkpoint", "no/checkpoint")
BUILD = ("build", "--checkpoint", "no/checkpoint")
MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((*EMBED, "--batch-size", "0"), "--batch-size"),
    ((*EMBED, "-o", "out.csv"), ".npy, .jsonl, .parquet"),
    ((*EMBED, "-o", "out"), "has no suffix"),
    ((*EMBED, "-o", "out.npy", "--output-dtype", "int8", "--on-error", "skip"), "no NaN"),
    ((*EMBED, "--threads", "100000"), "logical CPUs"),
    ((*EMBED, "--steps", "-1"), "--steps"),
    ((*EMBED, "--steps", "1", "--mode", "disc"), "runs no latent steps"),
    ((*EMBED, "--video-frames", "3"), "even number"),
    ((*EMBED, "--video-fps", "nan"), "above 0"),
    ((*EMBED, "--video-fps", "2", "--video-frames", "4"), "one of the two"),
    ((*EMBED, "--on-error", "raise"), "'fail', 'skip'"),
    ((*EVALUATE, "--video-frames", "3"), "even number"),
    ((*EVALUATE, "--threads", "100000"), "logical CPUs"),
    ((*EVALUATE, "--steps", "1", "--mode", "disc"), "runs no latent steps"),
    ((*EVALUATE, "--batch-size", "0"), "--batch-size"),
    ((*SEARCH, "--threads", "100000"), "logical CPUs"),
    ((*SEARCH, "--top", "0"), "--top"),
    ((*SEARCH, "--html", "found.csv"), ".html"),
    ((*BENCH, "--batch", "0,1"), "positive numbers"),
    ((*BENCH, "--threads", "100000"), "logical CPUs"),
    ((*BENCH, "--against", "pytorch"), "needs the checkpoint"),
    ((*BENCH, "--compile"), "--against pytorch"),
    ((*BENCH, "--html", "found.csv"), ".html"),
    (("selftest", "no-bundle", "--threads", "100000"), "logical CPUs"),
    (("parity", "no-bundle"), "--checkpoint"),
    (("calibrate", "-o", "ranges.csv"), ".npz"),
    (("calibrate", "-o", "ranges.npz", "--checkpoint", ""), "is empty"),
    ((*EXPORT, "--precision", "fp12"), "Unknown precision 'fp12'"),
    ((*EXPORT, "--precision", "prefill=int8"), "expected each of"),
    ((*EXPORT, "--exclude", "layer"), "the precision is fp16"),
    ((*EXPORT, "--min-cosine", "0.9"), "the precision is fp16"),
    ((*EXPORT, "--precision", "fp32", "--ranges", "r.npz"), "the precision is fp32"),
    ((*EXPORT, "--top-k", "0"), "--top-k"),
    (("export", "--checkpoint", ""), "is empty"),
    ((*BUILD, "--target", "nonsense"), "There is no target 'nonsense'"),
    ((*BUILD, "--target", "cuda", "--precision", "fp32"), "cannot run the precision fp32"),
    ((*BUILD, "--target", "cpu", "--precision", "bf16"), "cannot run the precision bf16"),
    (("compile", "no-bundle", "-o", "out", "--target", "nonsense"), "There is no target 'nonsense'"),
    (("plan", "--target", "nonsense"), "There is no target 'nonsense'"),
    (("plan", "--target", "cpu"), "has no engines to plan"),
    (("plan", "--target", "rtx", "--precision", "int4-weight", "--weights", "shared"), "cannot share"),
    (("random-checkpoint", "out", "--preset", "7b"), "--preset"),
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("arguments", "part"), MISTAKES, ids=lambda value: " ".join(value) if type(value) is tuple else "")
def test_a_mistake_that_no_file_can_mend(
    arguments: tuple[str, ...], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_is_usage(run(*arguments), part)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [("--min-pixels", "4000000"), ("--min-pixels", "2000", "--max-pixels", "1000"), ("--prefix", ""), ("--suffix", "a")],
)
def test_texts_and_sizes_of_no_model(options: tuple[str, ...], tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = run("export", "--checkpoint", tiny_checkpoint, *options, "-o", tmp_path / "out")
    assert_is_usage(result, options[-2].removeprefix("--").split("-")[0])


@pytest.mark.parametrize(
    "arguments",
    [
        EMBED,
        EVALUATE,
        SEARCH,
        BENCH,
        EXPORT,
        ("inspect", "no-bundle"),
        ("plan", "--target", "no.toml"),
        ("embed", "no-bundle", "--input", "no.jsonl"),
    ],
    ids=" ".join,
)
def test_what_a_file_could_mend_is_a_failure(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, *(("--offline",) if arguments is EXPORT else ()))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")


def test_usage_as_json() -> None:
    result = run("plan", "--target", "nonsense", "--json")
    error = json.loads(result.stderr)["error"]
    assert (result.exit_code, result.stdout) == (2, "")
    assert (error["type"], error["message"]) == ("UsageError", "There is no target 'nonsense'.")
    assert error["fix"].startswith("use --target ")


def test_debug_shows_the_traceback_of_usage() -> None:
    assert run("plan", "--target", "nonsense", "--debug").exception.__class__.__name__ == "OptionError"


def test_the_help_states_the_exit_codes() -> None:
    assert "2 usage error: a wrong option or value" in " ".join(run("--help").stdout.split())
