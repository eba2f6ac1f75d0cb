"""What a calibration and the held-out inputs give for plume-tiny, once for all tests."""

import pytest

from plume_export.bundle import Bundle
from plume_export.checkpoint import Checkpoint
from plume_export.quantise.activation_ranges import Ranges
from plume_export.quantise.calibrate import calibrate
from plume_export.quantise.held_out import HeldOut
from plume_export.quantise.quantisation_plan import QuantisationPlan
from plume_export.samples import calibration_inputs_file, held_out_inputs_file
from tests.quantise.bench import Bench, plan_of


@pytest.fixture(scope="session")
def shipped_ranges(plume_tiny: Checkpoint) -> Ranges:
    return calibrate(plume_tiny, calibration_inputs_file())


@pytest.fixture(scope="session")
def bench(plume_tiny: Checkpoint, plume_tiny_fp16: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    held_out = HeldOut(plume_tiny, held_out_inputs_file(), "all")
    return Bench(plume_tiny_fp16, tmp_path_factory.mktemp("bench"), held_out)


@pytest.fixture(scope="session")
def int8_plan(plume_tiny: Checkpoint, shipped_ranges: Ranges) -> QuantisationPlan:
    return plan_of(plume_tiny, shipped_ranges, "int8")
