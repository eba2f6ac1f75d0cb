"""Engines of integer bundles, built by TensorRT-RTX: all three graphs, weights that stay integers."""

from pathlib import Path

import onnx_ir as ir
import pytest

from plume_export.bundle import WEIGHTS, Bundle
from plume_export.checkpoint import Checkpoint
from plume_export.errors import PlumeExportError
from plume_export.pipeline import ModelOptions, compile_bundle, export_checkpoint, open_checkpoint
from plume_export.quantise.activation_ranges import write_ranges
from plume_export.quantise.calibrate import calibrate
from plume_export.quantise.options import QuantiseOptions
from plume_export.recipe import read_target
from plume_export.samples import PLUME_TINY, sample_inputs_file
from plume_export.spec import GRAPH_NAMES, INTEGER_PRECISIONS, Precision

from ...conftest import WITHOUT_CALIBRATION
from .conftest import write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=INTEGER_PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    chosen: Precision = request.param
    return chosen


@pytest.fixture(scope="module", params=[PLUME_TINY, "random"])
def calibrated(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Path]:
    """A checkpoint and its ranges on the few inputs of the self-test."""
    checkpoint = open_checkpoint(str(tiny_checkpoint) if request.param == "random" else PLUME_TINY, ModelOptions())
    file = tmp_path_factory.mktemp("ranges") / "ranges.npz"
    write_ranges(calibrate(checkpoint, sample_inputs_file()), file)
    return checkpoint, file


@pytest.fixture(scope="module")
def portable(calibrated: tuple[Checkpoint, Path], precision: Precision, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    checkpoint, ranges_file = calibrated
    options = WITHOUT_CALIBRATION(precision, quantise=QuantiseOptions(ranges_file=ranges_file, min_cosine=0))
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("integers") / precision, options, lambda _: None)


def test_baked(portable: Bundle, tmp_path: Path) -> None:
    bundle = compile_bundle(portable, tmp_path / "engines", read_target(write_recipe(tmp_path)))
    manifest = bundle.manifest
    assert manifest.engines is not None
    assert tuple(manifest.engines.graphs) == GRAPH_NAMES
    assert manifest.quantisation == portable.manifest.quantisation
    weights_bytes = [entry.weights_bytes for entry in manifest.engines.graphs.values()]
    float16 = sum(2 * weight_values(portable, name) for name in GRAPH_NAMES)
    assert sum(size for size in weights_bytes if size is not None) < 0.75 * float16


def test_shared(portable: Bundle, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, weights="shared")
    if portable.manifest.precision == "int8":
        compiled = compile_bundle(portable, tmp_path / "engines", read_target(recipe))
        assert compiled.manifest.files[WEIGHTS] == portable.manifest.files[WEIGHTS]
    else:
        with pytest.raises(PlumeExportError, match=r"cannot share the weights.*reformatted in every run"):
            compile_bundle(portable, tmp_path / "engines", read_target(recipe))


def weight_values(bundle: Bundle, graph: str) -> int:
    initializers = ir.load(bundle.path / f"{graph}.onnx").graph.initializers.values()
    return sum(value.const_value.size for value in initializers if isinstance(value.const_value, ir.ExternalTensor))
