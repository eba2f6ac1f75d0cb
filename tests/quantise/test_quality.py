"""What integers cost the sample model and its outlier twin, on inputs that calibration never saw.

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
from tests.quantise.twins import write_twin

MEAN, WORST = 0.99, 0.97


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = write_twin(plume_tiny_directory(), tmp_path_factory.mktemp("twins") / "outliers", factor=128.0, stride=29)
    return open_checkpoint(str(path), ModelOptions())


@pytest.fixture(scope="module")
def twin_ranges(twin: Checkpoint) -> Ranges:
    return calibrate(twin, calibration_inputs_file())


def test_int8(plume_tiny: Checkpoint, bench: Bench, int8_plan: QuantisationPlan) -> None:
    measured = bench.measure(plume_tiny, int8_plan)
    assert measured.inputs == 20
    assert measured.mean >= MEAN
    assert measured.worst >= WORST


def test_int8_weight(plume_tiny: Checkpoint, bench: Bench, shipped_ranges: Ranges) -> None:
    assert bench.measure(plume_tiny, plan_of(plume_tiny, shipped_ranges, "int8-weight")).worst >= 0.999


def test_int4_weight(plume_tiny: Checkpoint, bench: Bench, shipped_ranges: Ranges) -> None:
    measured = bench.measure(plume_tiny, plan_of(plume_tiny, shipped_ranges, "int4-weight"))
    assert measured.mean >= 0.99
    assert measured.worst >= 0.95


def test_a_twin_has_outliers_and_computes_the_same(
    plume_tiny: Checkpoint, twin: Checkpoint, bench: Bench, shipped_ranges: Ranges, twin_ranges: Ranges
) -> None:
    everything = list(naive_plan(twin, twin_ranges).schemes["prefill"]) + list(
        naive_plan(twin, twin_ranges).schemes["vision_encoder"]
    )
    assert bench.measure(twin, naive_plan(twin, twin_ranges).excluding(everything)).worst >= 0.9999
    ratios = [
        twin_ranges.of(layer).input_abs_max.max() / shipped_ranges.of(layer).input_abs_max.max()
        for layer in everything
        if not layer.endswith((".o_proj", ".proj", ".fc2", "merger.fc1"))
    ]
    assert np.median(ratios) > 30


def test_naive_int8_collapses_on_the_twin(twin: Checkpoint, bench: Bench, twin_ranges: Ranges) -> None:
    measured = bench.measure(twin, naive_plan(twin, twin_ranges))
    assert measured.mean < 0.9


def test_int8_keeps_its_bars_on_the_twin(twin: Checkpoint, bench: Bench, twin_ranges: Ranges) -> None:
    measured = bench.measure(twin, plan_of(twin, twin_ranges, "int8"))
    assert measured.mean >= MEAN
    assert measured.worst >= WORST
