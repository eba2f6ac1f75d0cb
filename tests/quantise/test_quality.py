"""What integers cost the sample model and its outlier variant, on inputs that calibration never saw.

The Q/DQ graph itself runs: float16 between the products is computed in float32 by ONNX Runtime's CPU kernels.
"""

import numpy as np
import pytest

from plume_export.checkpoint import Checkpoint
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.quantise.activation_ranges import Ranges
from plume_export.quantise.calibrate import calibrate
from plume_export.quantise.quantisation_plan import QuantisationPlan
from plume_export.samples import calibration_inputs_file, plume_tiny_directory
from tests.quantise.bench import Bench, naive_plan, plan_of
from tests.quantise.outlier_variant import write_outlier_variant

MEAN, WORST = 0.99, 0.97


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = write_outlier_variant(
        plume_tiny_directory(), tmp_path_factory.mktemp("variants") / "outliers", factor=128.0, stride=29
    )
    return open_checkpoint(str(path), ModelOptions())


@pytest.fixture(scope="module")
def variant_ranges(variant: Checkpoint) -> Ranges:
    return calibrate(variant, calibration_inputs_file())


@pytest.mark.slow
def test_int8(plume_tiny: Checkpoint, bench: Bench, int8_plan: QuantisationPlan) -> None:
    measured = bench.measure(plume_tiny, int8_plan)
    assert measured.inputs == 20
    assert measured.mean >= MEAN
    assert measured.worst >= WORST


@pytest.mark.slow
def test_int8_weight(plume_tiny: Checkpoint, bench: Bench, shipped_ranges: Ranges) -> None:
    assert bench.measure(plume_tiny, plan_of(plume_tiny, shipped_ranges, "int8-weight")).worst >= 0.999


@pytest.mark.slow
def test_int4_weight(plume_tiny: Checkpoint, bench: Bench, shipped_ranges: Ranges) -> None:
    measured = bench.measure(plume_tiny, plan_of(plume_tiny, shipped_ranges, "int4-weight"))
    assert measured.mean >= 0.99
    assert measured.worst >= 0.95


@pytest.mark.slow
def test_the_variant_has_outliers_and_computes_the_same(
    plume_tiny: Checkpoint, variant: Checkpoint, bench: Bench, shipped_ranges: Ranges, variant_ranges: Ranges
) -> None:
    everything = list(naive_plan(variant, variant_ranges).schemes["prefill"]) + list(
        naive_plan(variant, variant_ranges).schemes["vision_encoder"]
    )
    assert bench.measure(variant, naive_plan(variant, variant_ranges).excluding(everything)).worst >= 0.9999
    ratios = [
        variant_ranges.of(layer).input_abs_max.max() / shipped_ranges.of(layer).input_abs_max.max()
        for layer in everything
        if not layer.endswith((".o_proj", ".proj", ".fc2", "merger.fc1"))
    ]
    assert np.median(ratios) > 30


@pytest.mark.slow
def test_naive_int8_collapses_on_the_variant(variant: Checkpoint, bench: Bench, variant_ranges: Ranges) -> None:
    measured = bench.measure(variant, naive_plan(variant, variant_ranges))
    assert measured.mean < 0.9


@pytest.mark.slow
def test_int8_keeps_its_bars_on_the_variant(variant: Checkpoint, bench: Bench, variant_ranges: Ranges) -> None:
    measured = bench.measure(variant, plan_of(variant, variant_ranges, "int8"))
    assert measured.mean >= MEAN
    assert measured.worst >= WORST
