"""How pictures and videos are read, from the command line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from plume_export.bundle import WEIGHTS, Bundle, bundle, open_bundle
from plume_export.cli.main import main
from tests.bundle.small_bundle import write_small_bundle
from tests.cli.failures import assert_fails, assert_is_usage
from tests.inputs.test_video import write_video


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two pictures that lie on their sides, and one that was turned upright."""
    picture = Image.effect_noise((90, 60), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    picture.save(tmp_path / "b.webp", exif=exif, lossless=True)
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    return [tmp_path / name for name in ("a.png", "b.webp", "upright.png")]


def test_embed_turns_pictures_upright(tiny_cpu: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    result = run("embed", tiny_cpu.path, *pictures, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("EXIF rotation") == 1
    assert f"2 images (the first: {pictures[0]}) have an EXIF rotation" in result.stderr
    assert "--exif-transpose rotates" in result.stderr
    stored = np.load(output)
    result = run("embed", tiny_cpu.path, *pictures, "-o", output, "--exif-transpose")
    assert "EXIF" not in result.stderr
    upright = np.load(output)
    assert np.abs(upright - upright[2]).max() <= 1e-5
    assert np.abs(stored[2] - upright[2]).max() <= 1e-5
    assert np.abs(stored[:2] - upright[:2]).max() > 1e-3


@pytest.mark.slow
def test_embed_samples_videos(tiny_cpu: Bundle, tmp_path: Path) -> None:
    clip, output = write_video(tmp_path / "clip.mp4", 40), tmp_path / "out.npy"
    rows = {}
    for options in ((), ("--video-fps", 2), ("--video-frames", 8), ("--video-frames", 4), ("--video-fps", 1)):
        assert run("embed", tiny_cpu.path, clip, "-o", output, *options).exit_code == 0
        rows[options] = np.load(output)[0]
    assert (rows[()] == rows["--video-fps", 2]).all()
    assert (rows[()] == rows["--video-frames", 8]).all()  # of 4 seconds
    assert np.abs(rows[()] - rows["--video-frames", 4]).max() > 1e-4
    assert (rows["--video-fps", 1] == rows["--video-frames", 4]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--video-frames", 3), "expected an even number from 2 to 768"),
        (("--video-fps", 0), "expected a number above 0"),
        (("--video-fps", "nan"), "expected a number above 0"),
        (("--video-frames", 4, "--video-fps", 2), "pass only one of the two"),
    ],
)
def test_values_out_of_range(tiny_cpu: Bundle, options: tuple[object, ...], message: str) -> None:
    result = run("embed", tiny_cpu.path, "--text", "a", *options)
    assert_is_usage(result, message)


def test_search_shows_pictures_upright_on_request(tiny_cpu: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    arguments = ("search", tiny_cpu.path, "--in", tmp_path, "--image", pictures[0], "--cache", tmp_path / "c.sqlite", "--json")
    stored, upright = run(*arguments), run(*arguments, "--exif-transpose")
    assert "3 images" in stored.stderr  # the query too
    assert upright.stderr == ""
    scores = [{Path(hit["file"]).name: hit["score"] for hit in json.loads(each.stdout)["hits"]} for each in (stored, upright)]
    assert scores[1]["upright.png"] == pytest.approx(1, abs=1e-5)
    assert scores[0]["upright.png"] < scores[0]["a.png"] == pytest.approx(1, abs=1e-5)


def test_a_deep_picture_is_no_white_page(tiny_cpu: Bundle, tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 5400).reshape(60, 90).astype(np.uint16)).save(tmp_path / "scan.png")
    result = run("embed", tiny_cpu.path, tmp_path / "scan.png")
    assert result.exit_code == 1
    assert "has mode I;16 (16-bit grey)" in result.stderr
    assert "python -c" in result.stderr


@pytest.fixture
def altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with a file of another content and the same size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = write_small_bundle(tmp_path / "bundle")
    (directory / WEIGHTS).write_text("X" * len(WEIGHTS))
    return directory


COMMANDS = {
    "embed": ["--text", "a"],
    "search": ["a", "--in", "."],
    "selftest": [],
    "compile": ["--target", "cpu", "-o"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_verify(name: str, altered: Path, tmp_path: Path) -> None:
    rest = [*COMMANDS[name], *([tmp_path / "out"] if name == "compile" else [])]
    assert_fails(run(name, altered, *rest), "sha256")
    assert "sha256" not in run(name, altered, *rest, "--no-verify").output


@pytest.mark.parametrize("name", [*COMMANDS, "evaluate", "bench", "parity"])
def test_every_command_that_works_with_a_bundle_has_it(name: str) -> None:
    assert "--no-verify" in run(name, "--help").output


def test_inspect_always_verifies(altered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "is_remembered", lambda _: True)
    open_bundle(altered)
    assert_fails(run("inspect", altered), "sha256")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("", "current directory"),
        (".", "current directory"),
        ("..", "ends in '..'"),
        ("/", "current directory"),
        ("n" * 250, "250 bytes"),
    ],
)
def test_outputs_of_compile_that_are_none(output: str, text: str, altered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(altered.parent)
    before = sorted(os.listdir(altered.parent))
    assert_fails(run("compile", altered, "--target", "cpu", "-o", output), text)
    assert sorted(os.listdir(altered.parent)) == before
