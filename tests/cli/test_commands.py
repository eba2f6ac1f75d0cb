"""The commands as a user types them: results, exit codes, one-message errors."""

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from plume_export.bundle import Bundle
from plume_export.bundle.manifest import manifest_sha256
from plume_export.cli import main
from plume_export.cli.main import COMMANDS
from plume_export.embed_file.embed_sources import EmbedResult
from plume_export.embed_file.partial import PartialRun
from plume_export.samples import sample_inputs_file

from ..conftest import GOLDEN
from .failures import assert_fails, assert_is_usage

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    lines = [{"id": "good", "text": "a text"}, {"id": "gone", "image": "gone.png"}, {"id": "last", "text": "another"}]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_help_and_version(run: Run) -> None:
    assert "embed" in run("--help").stdout
    assert run("--version").stdout.startswith("plume-export")
    assert run("embed").exit_code == 2


def test_the_list_of_commands_is_true() -> None:
    """--help prints it without importing the commands."""
    context = click.Context(main)
    for name, (_, text) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert command.help is not None
        assert command.help.startswith(text.rstrip(".")), name
    assert main.get_command(context, "none") is None


@pytest.mark.slow
def test_an_input_is_not_overwritten(run: Run, tiny_cpu: Bundle, inputs: Path) -> None:
    before = inputs.read_bytes()
    for arguments in (("--input", inputs), (inputs,)):
        assert_fails(run("embed", tiny_cpu.path, *arguments, "-o", inputs), "is also the input")
    assert inputs.read_bytes() == before


def test_a_page_does_not_replace_a_picture(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"a picture")
    for command in (("search", tiny_cpu.path, "dogs", "--in", tmp_path), ("bench", tiny_cpu.path)):
        result = run(*command, "--html", picture)
        assert result.exit_code == 2
        assert "does not end in .html" in result.stderr
    assert picture.read_bytes() == b"a picture"


def test_the_anchor_has_no_steps(run: Run, tiny_cpu: Bundle) -> None:
    assert_is_usage(run("embed", tiny_cpu.path, "--text", "a", "--mode", "disc", "--steps", 3), "'disc' runs no latent steps")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.slow
def test_a_run_that_is_stopped_names_the_way_on(
    run: Run, tiny_cpu: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """By Ctrl-C, or by SIGTERM and SIGHUP, which end the program in order."""
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(20)))
    common = ("embed", tiny_cpu.path, "--input", file, "-o", tmp_path / "out.npy", "--batch-size", 1)
    windows = []
    append = PartialRun.append

    def stopping(partial: PartialRun, window: EmbedResult) -> None:
        append(partial, window)
        windows.append(window)
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(PartialRun, "append", stopping)
        assert "16 finished inputs are saved; repeat the command with --resume to continue" in run(*common).stderr
    assert_fails(run(*common), "16 inputs are finished with bundle", tiny_cpu.sha256[:12], "--resume", "--restart")
    assert run(*common, "--resume", "--restart").exit_code == 2
    result = run(*common, "--resume")
    assert result.exit_code == 0
    assert "20 embedded" in result.stderr
    assert "starting from the beginning" in run(*common, "--resume").stderr
    assert len(windows) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
def test_signals_end_an_embedding_in_order(tiny_cpu: Bundle, tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(20_000)))
    command = [sys.executable, "-m", "plume_export", "embed", str(tiny_cpu.path), "--input", str(file)]
    command += ["-o", str(tmp_path / "out.npy"), "--batch-size", "1"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    # Under nohup, SIGHUP is ignored, which children inherit.
    with subprocess.Popen(command, **streams, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
        journal = tmp_path / ".out.npy.partial.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert "repeat the command with --resume to continue" in errors
    assert "Traceback" not in errors


def test_a_bundle_is_not_compiled_onto_itself(run: Run, tiny_fp32: Bundle) -> None:
    before = tiny_fp32.sha256
    assert_fails(run("compile", tiny_fp32.path, "--target", "cpu", "-o", tiny_fp32.path), "would be lost", "--output")
    assert tiny_fp32.sha256 == before


@pytest.mark.slow
def test_a_build_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plume_export", "build", "--target", "cpu", "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as build:
        while not list(tmp_path.iterdir()):
            assert build.poll() is None
            time.sleep(0.05)
        build.terminate()
        assert build.wait() == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_no_checkpoint(run: Run, tiny_fp32: Bundle, tmp_path: Path) -> None:
    assert_fails(run("export", "--checkpoint", tiny_fp32.path, "-o", tmp_path / "out"), "is a bundle, not a checkpoint")


def test_what_is_missing_is_told_before_the_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("build", "--target", "cpu", "-o", tmp_path / "out")
    assert_fails(result, "'onnxruntime' is not installed", "plume-export[cpu]")
    assert "calibrating" not in result.stderr


@pytest.mark.slow
def test_embed_to_every_format(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    for suffix in (".npy", ".jsonl", ".parquet"):
        result = run("embed", tiny_cpu.path, "--input", sample_inputs_file(), "--output", tmp_path / f"out{suffix}")
        assert result.exit_code == 0, result.output
    array = np.load(tmp_path / "out.npy")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert [line["id"] for line in lines] == table["id"]
    assert (np.array([line["embedding"] for line in lines], np.float32) == array).all()
    assert (np.array(table["embedding"], np.float32) == array).all()


def test_embed_prints_json_lines_without_an_output(run: Run, tiny_cpu: Bundle) -> None:
    result = run("embed", tiny_cpu.path, "--text", "a text")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["embedding"]) == 128


def test_files_are_embedded_with_the_text(run: Run, tiny_cpu: Bundle) -> None:
    picture = sample_inputs_file().parent / "images" / "shapes.png"
    result = run("embed", tiny_cpu.path, picture, picture, "--text", "What is this?")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [str(picture)] * 2


def test_a_bad_line_fails_by_default(run: Run, tiny_cpu: Bundle, inputs: Path, tmp_path: Path) -> None:
    result = run("embed", tiny_cpu.path, "--input", inputs, "--output", tmp_path / "out.npy")
    assert_fails(result, "'gone'", "gone.png", "does not exist")
    assert not (tmp_path / "out.npy").exists()


def test_a_bad_line_is_skipped_and_reported(run: Run, tiny_cpu: Bundle, inputs: Path, tmp_path: Path) -> None:
    for suffix in (".npy", ".jsonl"):
        result = run("embed", tiny_cpu.path, "--input", inputs, "--on-error", "skip", "-o", tmp_path / f"out{suffix}")
        assert result.exit_code == 0
        assert "skipped gone: " in result.stderr
        assert "2 embedded, 1 skipped (line 2)\n" in result.stderr
    array = np.load(tmp_path / "out.npy")
    assert np.isnan(array[1]).all()
    assert np.isfinite(array[[0, 2]]).all()
    ids = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ids == ["good", "last"]


@pytest.mark.slow
def test_a_stopped_embed_goes_on(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    """A line behind the first window fails; it is put right, and the file is what one run would have written."""
    lines = [json.dumps({"text": f"text {number}"}) for number in range(20)]
    file, common = tmp_path / "in.jsonl", ("embed", tiny_cpu.path, "--input", tmp_path / "in.jsonl", "--batch-size", 1)
    file.write_text("\n".join([*lines[:17], "{broken", *lines[18:]]))
    assert_fails(run(*common, "-o", tmp_path / "out.npy"), "line 18", "--resume continues after the 16 finished inputs")
    file.write_text("\n".join(lines))
    assert_fails(run(*common, "-o", tmp_path / "out.npy", "--resume", "--mode", "disc"), "mode was 'gen' but", "fix:")
    assert run(*common, "-o", tmp_path / "out.npy", "--resume").exit_code == 0
    assert run(*common, "-o", tmp_path / "whole.npy").exit_code == 0
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.npy", "whole.npy"]
    assert run("embed", tiny_cpu.path, "--text", "a", "--resume").exit_code == 2


def test_nothing_embedded_is_a_failure(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    options = ("--on-error", "skip")
    result = run("embed", tiny_cpu.path, "gone.png", "away.png", *options, "-o", tmp_path / "out.npy")
    assert_fails(result, "0 embedded, 2 skipped (gone.png, away.png)", "inputs were skipped", "does not exist")
    assert list(tmp_path.iterdir()) == []
    assert_fails(run("embed", tiny_cpu.path, "gone.png", *options), "inputs were skipped")


@pytest.mark.slow
def test_a_folder_and_files_are_embedded(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    pictures = Path(shutil.copytree(sample_inputs_file().parent / "images", tmp_path / "pictures"))
    (pictures / "notes.txt").write_text("no picture")
    result = run("embed", tiny_cpu.path, pictures, pictures / "page.png")
    assert result.exit_code == 0
    files = [str(file) for file in sorted(pictures.rglob("*.png"))]
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [*files, str(pictures / "page.png")]
    assert f"skipped in the folders: {pictures / 'notes.txt'} (not an image or video by its suffix)" in result.stderr
    assert f"1 id occurs more than once: {pictures / 'page.png'}" in result.stderr


def test_lines_come_from_stdin(tiny_cpu: Bundle) -> None:
    command = ["embed", str(tiny_cpu.path), "--input", "-"]
    result = CliRunner().invoke(main, command, input='{"text": "a"}\n{"id": "b", "text": "b"}\n')
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["line 1", "b"]
    assert result.stderr.endswith("2 embedded\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.slow
def test_a_stdout_that_takes_nothing(tiny_cpu: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "a"}\n' * 200)
    command = f"{sys.executable} -m plume_export embed {tiny_cpu.path} --input {file}"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert full.stderr.count("error: ") == 1
    assert "No space left on device" in full.stderr
    closed = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True, check=False)
    assert (closed.returncode, "stdout is closed" in closed.stderr) == (1, True)
    script = f"set -o pipefail; {command} --batch-size 1 | head -1"
    piped = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert piped.returncode == 128 + signal.SIGPIPE
    for result in (full, closed, piped):
        assert "Traceback" not in result.stderr
        assert "Exception ignored" not in result.stderr


def test_an_output_dtype(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    common = ("embed", tiny_cpu.path, "--text", "a")
    assert run(*common, "-o", tmp_path / "whole.npy").exit_code == 0
    assert run(*common, "-o", tmp_path / "out.npy", "--output-dtype", "int8").exit_code == 0
    whole, integers = (np.load(tmp_path / name) for name in ("whole.npy", "out.npy"))
    assert (integers == np.rint(127 * whole)).all()
    line = json.loads(run(*common, "--output-dtype", "binary").stdout)
    assert line["embedding"] == np.packbits(whole[0] > 0).tolist()
    (row,) = json.loads(run(*common, "--output-dtype", "binary", "--json").stdout)["embeddings"]
    assert row == line
    skipping = (*common, "--output-dtype", "int8", "--on-error", "skip", "-o")
    assert_is_usage(run(*skipping, tmp_path / "out.npy"), "int8 has no NaN")
    assert run(*skipping, tmp_path / "out.jsonl").exit_code == 0


def test_a_broken_line_is_named(run: Run, tiny_cpu: Bundle, inputs: Path) -> None:
    inputs.write_text(inputs.read_text() + "{broken\n")
    assert_fails(run("embed", tiny_cpu.path, "--input", inputs, "--on-error", "fail"), "gone")
    result = run("embed", tiny_cpu.path, "--input", inputs, "--on-error", "skip")
    assert f"{inputs} line 4" in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "text": "  "}', "empty"),
        ('{"id": "a", "video": []}', "no frames"),
        ('{"id": "a", "colour": "red"}', "'colour'"),
        ('["text"]', "object"),
    ],
)
def test_bad_lines(run: Run, tiny_cpu: Bundle, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(line + "\n")
    assert_fails(run("embed", tiny_cpu.path, "--input", file), message, "line 1", "fix:")


def test_truncated_image(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    whole = (sample_inputs_file().parent / "images" / "page.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    assert_fails(run("embed", tiny_cpu.path, tmp_path / "half.png"), "half.png", "fix:")


def test_bad_outputs(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    assert_is_usage(run("embed", tiny_cpu.path, "--text", "a", "-o", tmp_path / "out.txt"), ".npy, .jsonl, .parquet")
    assert_fails(run("embed", tiny_cpu.path, "--text", "a", "-o", tmp_path / "no" / "out.npy"), "cannot be written")


def test_missing_inputs_file(run: Run, tiny_cpu: Bundle) -> None:
    assert_fails(run("embed", tiny_cpu.path, "--input", "no.jsonl"), "no.jsonl")


def test_missing_bundle(run: Run) -> None:
    assert_fails(run("embed", "no/bundle", "--text", "a"), "no/bundle")


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(main, ["--debug", "embed", "no/bundle", "--text", "a"])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "BundleError"


def test_selftest(run: Run, tiny_cpu: Bundle) -> None:
    result = run("selftest", tiny_cpu.path)
    assert result.exit_code == 0, result.output
    for part in ("router choices", "parity passed", "rollout", "peak memory"):
        assert part in result.stdout
    report = json.loads(run("selftest", tiny_cpu.path, "--json").stdout)
    assert report["parity"]["router_agreement"] == 1.0


def test_selftest_finds_a_wrong_bundle(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    """Weights of another seed under the right hashes: only parity can tell."""
    wrong = Path(shutil.copytree(tiny_cpu.path, tmp_path / "wrong"))
    weights = wrong / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40000] = bytes(40000)
    weights.unlink()
    weights.write_bytes(data)
    manifest = json.loads((wrong / "manifest.json").read_text())
    manifest["files"]["weights.safetensors"]["sha256"] = hashlib.sha256(data).hexdigest()
    manifest["manifest_sha256"] = manifest_sha256(manifest)
    (wrong / "manifest.json").write_text(json.dumps(manifest))
    result = run("selftest", wrong)
    assert result.exit_code == 1
    assert "the first stage outside" in result.stdout


@pytest.mark.slow
def test_parity_command(run: Run, tiny_cpu: Bundle, tiny_checkpoint: Path) -> None:
    result = run("parity", tiny_cpu.path, "--checkpoint", tiny_checkpoint, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["first_bad_stage"] is None
    assert report["inputs"] == 7


def test_inspect(run: Run, tiny_cpu: Bundle) -> None:
    shown = run("inspect", tiny_cpu.path).stdout
    assert "latent_step" in shown
    assert f"bundle {tiny_cpu.sha256[:12]}" in shown
    assert "all file hashes match" in shown
    assert "prefill contains the cached keys and values of the first 16 tokens of any prompt" in shown
    assert json.loads(run("inspect", tiny_cpu.path, "--json").stdout)["precision"] == "fp32"


def test_build_errors(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert_is_usage(run("build", "--target", "orin", "--output", tmp_path / "b"), "no target 'orin'", "jetson-orin-nano-8gb")
    assert_fails(run("build", "--checkpoint", tmp_path / "none", "--output", tmp_path / "b"), str(tmp_path / "none"))
    refused = run("build", "--checkpoint", tiny_checkpoint, "--precision", "bf16", "--target", "cpu", "-o", tmp_path / "b")
    assert_is_usage(refused, "no bfloat16 kernels", "--precision fp32")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "no inputs to compare"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "Two inputs have the same name 'a'"),
        ('{"text": "x"}\n{"id": "0", "text": "y"}\n', "Two inputs have the same name '0'"),
    ],
)
def test_parity_of_inputs_that_it_could_not_tell_apart(
    run: Run, tiny_cpu: Bundle, tiny_checkpoint: Path, tmp_path: Path, lines: str, message: str
) -> None:
    (tmp_path / "in.jsonl").write_text(lines)
    command = ("parity", tiny_cpu.path, "--checkpoint", tiny_checkpoint, "--inputs", tmp_path / "in.jsonl")
    assert_fails(run(*command), message)


def test_parity_with_another_checkpoint(run: Run, tiny_cpu: Bundle) -> None:
    assert_fails(run("parity", tiny_cpu.path, "--checkpoint", GOLDEN / "checkpoint"), "not the bundle's checkpoint")


def test_a_file_in_the_way_of_the_output(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_fails(run("build", "--checkpoint", tiny_checkpoint, "-o", tmp_path / "file" / "bundle"), "file is a file")


@pytest.mark.slow
def test_full_disk_halfway(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """A limit of 1 MB a file stands for a disk that fills while the weights are written."""

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    command = [sys.executable, "-m", "plume_export", "export", "--checkpoint", str(tiny_checkpoint), "-o", "bundle"]
    result = subprocess.run(command, cwd=tmp_path, preexec_fn=limit_file_size, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "error: bundle cannot be written: File too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_compiling_twice_is_refused(run: Run, tiny_cpu: Bundle, tmp_path: Path) -> None:
    assert_fails(run("compile", tiny_cpu.path, "--output", tmp_path / "b"), "already compiled")
