"""Engines that several tests share, built for real by TensorRT-RTX on this CPU."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from plume_export.bundle import Bundle, EngineManifest
from plume_export.pipeline import compile_bundle
from plume_export.recipe import read_target

_RECIPE = """
description = "Small, for tests"
backend = "tensorrt-rtx"
precision = "fp16"
weights = "{weights}"
max_pixels = {pixels}
[shapes]
batch = [1, 1, 2]
prompt_tokens = [16, 256, {tokens}]
image_tokens = [4, 64, {image}]
[builder]
optimization_level = 2
[software]
python = "3.11"
"""


@dataclass(frozen=True)
class Built:
    """Engines and the portable bundle that they were compiled from."""

    source: Bundle
    bundle: Bundle

    @property
    def engines(self) -> EngineManifest:
        assert self.bundle.manifest.engines is not None
        return self.bundle.manifest.engines


def write_recipe(directory: Path, *, tokens: int = 1024, image: int = 256, weights: str = "baked") -> str:
    file = directory / f"test-{weights}-{tokens}.toml"
    file.write_text(_RECIPE.format(tokens=tokens, image=image, pixels=image * 784, weights=weights))
    return str(file)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_recipe(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="session")
def tiny_engines(tmp_path_factory: pytest.TempPathFactory, tiny_fp16: Bundle, recipe: str) -> Built:
    return Built(tiny_fp16, compile_bundle(tiny_fp16, tmp_path_factory.mktemp("engines") / "tiny", read_target(recipe)))


@pytest.fixture(scope="session")
def plume_tiny_engines(tmp_path_factory: pytest.TempPathFactory, plume_tiny_fp16: Bundle, recipe: str) -> Built:
    return Built(
        plume_tiny_fp16, compile_bundle(plume_tiny_fp16, tmp_path_factory.mktemp("engines") / "plume-tiny", read_target(recipe))
    )


@pytest.fixture(scope="session", params=["tiny_fp16", "tiny_bf16", "plume_tiny_fp16", "plume_tiny_bf16"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, recipe: str) -> Built:
    """The engines of both small models in both 16-bit precisions, in turn."""
    if request.param.endswith("fp16"):
        engines: Built = request.getfixturevalue(request.param.replace("fp16", "engines"))
        return engines
    source: Bundle = request.getfixturevalue(request.param)
    return Built(source, compile_bundle(source, tmp_path_factory.mktemp("engines") / request.param, read_target(recipe)))
