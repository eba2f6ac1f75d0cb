"""Recipes: those that ship, a user's own, and every way one can be wrong."""

import json
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from plume_export.checkpoint.random import preset_spec
from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.recipe import check_recipe_fits_model, model_scaled_to, read_recipe, recipe_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = """
description = "My workstation"
backend = "tensorrt-rtx"
precision = "fp16"
max_pixels = 200704
[shapes]
batch = [1, 1, 2]
prompt_tokens = [16, 256, 512]
image_tokens = [4, 64, 256]
[software]
python = "3.12"
"""
JETSONS = ["jetson-agx-orin-64gb", "jetson-orin-nano-8gb", "jetson-orin-nx-16gb", "jetson-thor"]
TARGETS = ["a100", "cpu", "cuda", "h100", "h200", *JETSONS, "l4", "rtx"]


def own(directory: Path, text: str) -> str:
    file = directory / "own.toml"
    file.write_text(text)
    return str(file)


def test_those_that_ship_can_serve_the_2b_model() -> None:
    assert recipe_names() == TARGETS
    for name in recipe_names():
        check_recipe_fits_model(read_recipe(name), preset_spec("2b", tokens=151936), 4, name)


def test_the_wheel_maps_the_folder_of_recipes() -> None:
    root = Path(__file__).parents[1]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["engines"] == "plume_export/data/engines"
    assert {path.name for path in (root / "engines").iterdir()} == {f"{name}.toml" for name in recipe_names()} | {"README.md"}


def test_a_new_one_in_twelve_lines(tmp_path: Path) -> None:
    recipe = read_recipe(own(tmp_path, OWN))
    assert recipe.limits.batch == (1, 1, 2)
    assert recipe.weights == "baked"
    assert recipe.builder is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('backend = "tensorrt-rtx"', 'backend = "tensorflow"', "tensorflow"),
        ("max_pixels", "maximum_pixels", "maximum_pixels"),
        ("batch = [1, 1, 2]", "batch = [1, 4, 2]", "batch = [1, 4, 2]; expected [min, opt, max] with min <= opt <= max"),
        ("batch = [1, 1, 2]", "batch = [0, 1, 2]", ">= 1"),
        ("batch = [1, 1, 2]", "batch = [2, 2, 2]", "has batch with min 2; expected at most 1"),
        ("image_tokens = [4,", "image_tokens = [16,", "has image_tokens with min 16; expected at most 4"),
        ("max_pixels = 200704", "max_pixels = 1568", ">= 3136"),
        ("batch = [1, 1, 2]", "batch = [1, 2]", "length 3"),
        ("200704", "2007040", "which are 2560 tokens; the max of its image_tokens is 256"),
        ("[16, 256, 512]", "[16, 128, 256]", "a prompt needs about 90 tokens more"),
        ('precision = "fp16"', "", "precision"),
        ('precision = "fp16"', "precision = fp16", "own.toml is invalid"),
    ],
)
def test_a_wrong_one_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = own(tmp_path, OWN.replace(old, new))
    with pytest.raises(PlumeExportError) as caught:
        read_recipe(file)
    assert file in str(caught.value)
    assert message in str(caught.value)
    assert "fix:" in str(caught.value)


CPU = OWN.replace("tensorrt-rtx", "onnxruntime-cpu")
CUDA = OWN.replace("tensorrt-rtx", "onnxruntime-cuda")
DEVICE = '[device]\nname = "x"\nmemory_gb = 8\ncompute_capability = "8.9"\n'


@pytest.mark.parametrize("text", [CPU, CUDA], ids=["cpu", "cuda"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[software]", "[builder]\n[software]", "has [builder], which onnxruntime-"),
        ("[software]", f"{DEVICE}[software]", "has [device], which onnxruntime-"),
        ('precision = "fp16"', 'precision = "fp16"\nweights = "shared"', 'has weights = "shared", which onnxruntime-'),
        ("max_pixels = 200704", "", "has no max_pixels"),
    ],
)
def test_what_onnxruntime_would_ignore_is_refused(tmp_path: Path, text: str, old: str, new: str, message: str) -> None:
    with pytest.raises(PlumeExportError) as caught:
        read_recipe(own(tmp_path, text.replace(old, new)))
    assert message in str(caught.value)


def test_a_cpu_needs_no_limits(tmp_path: Path) -> None:
    without_shapes = CPU[: CPU.index("[shapes]")] + CPU[CPU.index("[software]") :]
    assert read_recipe(own(tmp_path, without_shapes)).max_pixels == 200704
    shipped = read_recipe("cpu")
    assert (shipped.shapes, shipped.max_pixels) == (None, None)
    with pytest.raises(PlumeExportError, match="has no shapes; onnxruntime-cuda requires it"):
        read_recipe(own(tmp_path, without_shapes.replace("-cpu", "-cuda")))


@pytest.mark.parametrize("content", [b"\xff", b"x = " + b"[" * 10_000, b"x = " + b"1" * 5000], ids=["bytes", "depth", "digits"])
def test_what_is_no_text_of_a_recipe(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.toml").write_bytes(content)
    with pytest.raises(PlumeExportError, match="is invalid"):
        read_recipe(str(tmp_path / "own.toml"))


def test_unknown_targets_and_files(tmp_path: Path) -> None:
    with pytest.raises(PlumeExportError, match="no target 'orin'.*\n.*jetson-orin-nano-8gb"):  # noqa: RUF043
        read_recipe("orin")
    with pytest.raises(PlumeExportError, match="cannot be read"):
        read_recipe(str(tmp_path / "none.toml"))


def test_a_model_that_is_too_short_for_the_recipe(tmp_path: Path) -> None:
    model = preset_spec("2b", tokens=151936)
    recipe = read_recipe(own(tmp_path, OWN.replace("512]", "32768]")))
    with pytest.raises(PlumeExportError, match="32768 tokens; this model allows 32756 with its 8 latent steps and 4"):
        check_recipe_fits_model(recipe, model, 4, "own")


def test_images_are_scaled_to_the_recipe(tmp_path: Path) -> None:
    model = preset_spec("2b", tokens=151936)
    recipe = read_recipe(own(tmp_path, OWN))
    scaled = model_scaled_to(recipe, model, "own").preprocess
    assert (scaled.min_pixels, scaled.max_pixels) == (model.preprocess.min_pixels, 200704)
    assert model_scaled_to(read_recipe("cuda"), model, "cuda").preprocess.max_pixels == model.preprocess.max_pixels
    large = msgspec.structs.replace(model, preprocess=msgspec.structs.replace(model.preprocess, min_pixels=300000))
    with pytest.raises(PlumeExportError, match="at least 300000 pixels; the recipe own allows at most 200704"):
        model_scaled_to(recipe, large, "own")


def test_the_command_lists_them() -> None:
    table = CliRunner().invoke(main, ["targets"])
    assert table.exit_code == 0
    listed = json.loads(CliRunner().invoke(main, ["targets", "--json"]).stdout)
    assert list(listed) == recipe_names()
    assert all(name in table.stdout for name in listed)
    assert listed["jetson-orin-nano-8gb"]["device"]["compute_capability"] == "8.7"
