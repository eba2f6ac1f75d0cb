"""Integers with a promise: layers go back to 16 bit, those that hurt most first, until every embedding is near enough."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import cast

from ..bundle import Bundle, MeasuredCosine, Modalities, Quantisation, graphs_of
from ..checkpoint import Checkpoint
from ..errors import PlumeExportError
from ..graphs.weights import read_parameter
from ..progress import Report, detail_of
from ..samples import held_out_inputs_file
from ..spec import GraphName, IntegerPrecision, ModelSpec, Precision
from .activation_ranges import Ranges
from .folds import linear_layers
from .held_out import HeldOut
from .options import QuantiseOptions, check_quantise_options, promise_of
from .quantisation_plan import QuantisationPlan, check_plan, plan_quantisation

# Writes the graphs as a plan has them, in place of those that were written before.
WriteGraphs = Callable[[QuantisationPlan], Bundle]


class Quantiser:
    """Plans when it is made; called with a function that writes a plan's graphs, it leaves those that keep the promise.

    `float32_layers` are not quantised. Raises PlumeExportError, when it is made, for layers that are not this checkpoint's.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision,
        modalities: Modalities,
        options: QuantiseOptions,
        ranges: Ranges,
        float32_layers: Collection[str] = (),
        report: Report = lambda _: None,
    ) -> None:
        self._checkpoint, self._modalities, self._options, self._report = checkpoint, modalities, options, report
        self._promise = promise_of(precision, options.min_cosine)
        self._schemes = checked_schemes(checkpoint.model, precision, modalities, options)
        self._ranges = ranges
        kept = (*options.kept, *(layer for layer in float32_layers if layer in linear_layers(checkpoint.model)))
        report("choosing scales")
        read = partial(read_parameter, tensors=checkpoint.tensors, model=checkpoint.model)
        self.plan = plan_quantisation(checkpoint.model, read, self._ranges, self._schemes, kept)

    def __call__(self, write: WriteGraphs) -> Quantisation:
        """Write until the promise is kept; raises PlumeExportError for one that cannot be."""
        plan, measured = self.plan, None
        if self._options.min_cosine == 0:
            self._report("writing weights")
            write(plan)
        else:
            held_out = HeldOut(self._checkpoint, held_out_inputs_file(), self._modalities, self._report)
            plan, measured = keep_promise(plan, self._promise, lambda one: held_out.measure(write(one)), self._report)
        return Quantisation(
            graphs=self._schemes,
            kept={layer: plan.saved_bytes[layer] for layer in plan.kept if layer in plan.saved_bytes},
            calibration_inputs=self._ranges.about.inputs,
            calibration_sha256=self._ranges.about.inputs_sha256,
            weight_only=plan.weight_only,
            min_cosine=self._promise,
            measured=measured,
        )


def checked_schemes(
    model: ModelSpec, precision: Precision, modalities: Modalities, options: QuantiseOptions
) -> dict[GraphName, IntegerPrecision]:
    """Return the graphs that get integers. Raises PlumeExportError for options that are not the model's, before any work."""
    graphs = graphs_of(modalities)
    check_quantise_options(precision, graphs, options)
    schemes = dict(options.schemes or dict.fromkeys(graphs, cast(IntegerPrecision, precision)))
    check_plan(model, schemes, options.kept)
    return schemes


def keep_promise(
    plan: QuantisationPlan,
    promise: float | None,
    measure: Callable[[QuantisationPlan], MeasuredCosine],
    report: Report = lambda _: None,
) -> tuple[QuantisationPlan, MeasuredCosine]:
    """Return the plan with as few layers in 16 bit as needed, and what it measures; it is what was measured last.

    The number of layers is doubled until the worst cosine is the promised one, then bisected. Raises PlumeExportError, with
    the best that was found, where all layers in 16 bit do not suffice.
    """
    worst_first = worst_layers_first(plan)
    tried: dict[int, MeasuredCosine] = {}

    def is_kept(count: int) -> bool:
        tried[count] = measure(plan.keeping(worst_first[:count]))
        detail_of(report)(f"{count} layers kept in 16 bit: cosine {tried[count].mean:.4f} mean, {tried[count].worst:.4f} worst")
        return promise is None or tried[count].worst >= promise

    enough, too_few = 0, -1
    while not is_kept(enough):
        if enough == len(worst_first):
            raise _broken(promise, tried)
        enough, too_few = min(max(1, 2 * enough), len(worst_first)), enough
    last = enough
    while enough - too_few > 1:
        last = (enough + too_few) // 2
        if is_kept(last):
            enough = last
        else:
            too_few = last
    if last != enough:
        is_kept(enough)
    return plan.keeping(worst_first[:enough]), tried[enough]


def worst_layers_first(plan: QuantisationPlan) -> list[str]:
    """Return the quantised layers by their errors, each the one of the sampled row that fares worst.

    In plume-tiny's int8 these errors rank layers more like the embedding does, where one layer at a time is quantised, than
    errors over all rows do (Spearman's correlation 0.54 against 0.23), and the first is the one that costs it most.
    """
    return sorted(plan.errors, key=plan.errors.__getitem__, reverse=True)


def _broken(promise: float | None, tried: Mapping[int, MeasuredCosine]) -> PlumeExportError:
    count = max(tried, key=lambda count: tried[count].worst)
    best = tried[count]
    return PlumeExportError(
        f"The promise of a cosine of {promise} cannot be kept. The best found, with {count} layers in 16 bit: "
        f"{best.worst:.5f} worst (input {best.worst_input!r}), {best.mean:.5f} mean.",
        fix=f"--min-cosine {int(1000 * best.worst) / 1000}, calibrate with inputs like yours (--ranges), or --precision fp16",
    )
