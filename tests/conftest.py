"""Checkpoints and bundles that several tests share, each made once."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from plume_export import portable_bundle
from plume_export.builders.onnxruntime.onnxruntime_bundle import compile_for_onnxruntime
from plume_export.bundle import Bundle
from plume_export.checkpoint import Checkpoint, write_random_checkpoint
from plume_export.pipeline import ExportOptions, ModelOptions, export_checkpoint, open_checkpoint
from plume_export.quantise.activation_ranges import write_ranges
from plume_export.quantise.calibrate import calibrate
from plume_export.quantise.options import QuantiseOptions
from plume_export.samples import PLUME_TINY, sample_inputs_file
from plume_export.spec import Precision

from .traced_graphs import cache_name, kept_traces

# What tests export without a look at it: nothing is calibrated, no self-test captured.
WITHOUT_CALIBRATION = partial(ExportOptions, selftest_inputs=None, guards_range=False)
GOLDEN = Path(__file__).parent / "golden"


# Whoever uses one of these waits for a calibration, or for engines.
SLOW_FIXTURES = {"plume_tiny_engines", "plume_tiny_int8", "shipped_ranges", "tiny_engines"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="Run the tests that take minutes each, too.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)
            if not config.getoption("--long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest --long"))
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def export_to(directory: Path, checkpoint: Path, precision: Precision) -> Bundle:
    """Export a checkpoint with the sample inputs as self-test."""
    options = ExportOptions(precision, selftest_inputs=sample_inputs_file(), guards_range=False)
    opened = open_checkpoint(str(checkpoint), ModelOptions())
    return export_checkpoint(opened, directory / f"{checkpoint.name}-{precision}", options, lambda _: None)


def export_sample(directory: Path, precision: Precision) -> Bundle:
    """Export the checkpoint that ships, without a self-test."""
    opened = open_checkpoint(PLUME_TINY, ModelOptions())
    return export_checkpoint(opened, directory / f"{PLUME_TINY}-{precision}", WITHOUT_CALIBRATION(precision), lambda _: None)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the package remembers for the user stays out of this user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def traced_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """No graph is traced twice; those of the shared bundles are not traced at all."""
    assert request.config.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portable_bundle, "trace_model_graph", kept_traces(request.config.cache.mkdir(cache_name())))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_random_checkpoint(path, "tiny", seed=0)
    return path


@pytest.fixture(scope="session")
def plume_tiny() -> Checkpoint:
    return open_checkpoint(PLUME_TINY, ModelOptions())


@pytest.fixture(scope="session")
def golden_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_to(tmp_path_factory.mktemp("bundles"), GOLDEN / "checkpoint", "fp32")


@pytest.fixture(scope="session")
def tiny_fp32(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Bundle:
    return export_to(tmp_path_factory.mktemp("bundles"), tiny_checkpoint, "fp32")


@pytest.fixture(scope="session")
def tiny_fp16(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Bundle:
    return export_to(tmp_path_factory.mktemp("bundles"), tiny_checkpoint, "fp16")


@pytest.fixture(scope="session")
def tiny_bf16(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Bundle:
    return export_to(tmp_path_factory.mktemp("bundles"), tiny_checkpoint, "bf16")


@pytest.fixture(scope="session")
def plume_tiny_fp16(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_sample(tmp_path_factory.mktemp("bundles"), "fp16")


@pytest.fixture(scope="session")
def plume_tiny_bf16(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_sample(tmp_path_factory.mktemp("bundles"), "bf16")


@pytest.fixture(scope="session")
def plume_tiny_int8(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Calibrated on the few inputs of the self-test."""
    directory = tmp_path_factory.mktemp("bundles")
    opened = open_checkpoint(PLUME_TINY, ModelOptions())
    write_ranges(calibrate(opened, sample_inputs_file()), directory / "ranges.npz")
    options = WITHOUT_CALIBRATION("int8", quantise=QuantiseOptions(ranges_file=directory / "ranges.npz", min_cosine=0))
    return export_checkpoint(opened, directory / f"{PLUME_TINY}-int8", options, lambda _: None)


@pytest.fixture(scope="session")
def tiny_cpu(tmp_path_factory: pytest.TempPathFactory, tiny_fp32: Bundle) -> Bundle:
    return compile_for_onnxruntime(tiny_fp32, tmp_path_factory.mktemp("bundles") / "tiny-cpu")
