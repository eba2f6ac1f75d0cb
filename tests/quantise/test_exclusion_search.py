"""As few layers as needed go back to 16 bit, or the build fails with the best it found."""

from collections.abc import Callable

import pytest

from plume_export.bundle import MeasuredCosine
from plume_export.checkpoint import Checkpoint
from plume_export.errors import PlumeExportError
from plume_export.quantise.exclusion_search import ExclusionSearch
from plume_export.quantise.quantisation_plan import QuantisationPlan
from tests.quantise.bench import Bench


def plan_with(layers: int) -> QuantisationPlan:
    errors = {f"layer{index}": index / layers for index in range(layers)}
    return QuantisationPlan({"prefill": dict.fromkeys(errors, "int8")}, {"prefill": {}}, {}, errors, dict.fromkeys(errors, 10))


def found(
    plan: QuantisationPlan, threshold: float | None, measure: Callable[[QuantisationPlan], MeasuredCosine]
) -> tuple[QuantisationPlan, MeasuredCosine]:
    search = ExclusionSearch(plan, threshold)
    while not search.is_finished:
        search.add(measure(search.plan))
    return search.plan, search.measured


class Scale:
    """Measures plans: each layer in 16 bit adds to the cosine."""

    def __init__(self, start: float, gain: float) -> None:
        self.start, self.gain, self.measured = start, gain, list[int]()

    def __call__(self, plan: QuantisationPlan) -> MeasuredCosine:
        self.measured.append(len(plan.excluded))
        worst = self.start + self.gain * len(plan.excluded)
        return MeasuredCosine(3, worst + 0.001, worst, "an-input")


@pytest.mark.parametrize(
    ("needed", "measured"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 4, 3]), (5, [0, 1, 2, 4, 8, 6, 5])]
)
def test_as_few_as_needed_and_the_last_measured(needed: int, measured: list[int]) -> None:
    scale = Scale(0.9 - 0.01 * needed, 0.01)
    plan, cosine = found(plan_with(10), 0.9 - 1e-6, scale)
    assert scale.measured == measured
    assert list(plan.excluded) == [f"layer{9 - index}" for index in range(needed)]
    assert cosine.worst == pytest.approx(0.9)


def test_what_was_bisected_away_is_written_again() -> None:
    scale = Scale(0.83, 0.01)
    plan, _ = found(plan_with(10), 0.9 - 1e-6, scale)
    assert len(plan.excluded) == 7
    assert scale.measured == [0, 1, 2, 4, 8, 6, 7]
    scale = Scale(0.84, 0.01)
    found(plan_with(10), 0.9 - 1e-6, scale)
    assert scale.measured == [0, 1, 2, 4, 8, 6, 5, 6]


def test_without_a_threshold_it_is_measured_once() -> None:
    scale = Scale(0.1, 0.0)
    plan, cosine = found(plan_with(4), None, scale)
    assert (plan.excluded, cosine.worst, scale.measured) == ((), 0.1, [0])


def test_a_threshold_that_is_not_reached() -> None:
    scale = Scale(0.9, 0.001)
    with pytest.raises(PlumeExportError, match=r"0\.95, is not reached.*10 layers in 16 bit: 0\.91000 worst") as error:
        found(plan_with(10), 0.95, scale)
    assert "min_cosine 0.909" in str(error.value) or "min_cosine 0.91" in str(error.value)
    assert scale.measured == [0, 1, 2, 4, 8, 10]


@pytest.mark.slow
def test_layers_in_16_bit_bring_the_sample_model_nearer(
    plume_tiny: Checkpoint, bench: Bench, int8_plan: QuantisationPlan
) -> None:
    threshold = 0.9995
    assert bench.measure(plume_tiny, int8_plan).worst < threshold
    plan, measured = found(int8_plan, threshold, lambda one: bench.measure(plume_tiny, one))
    assert measured.worst >= threshold
    assert 0 < len(plan.excluded) < len(int8_plan.errors)
    assert sum(plan.saved_bytes[layer] for layer in plan.excluded) > 0
