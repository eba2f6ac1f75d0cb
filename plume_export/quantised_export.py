"""Write a draft's graphs quantised: plan, write, measure, and exclude more layers until the accuracy suffices."""

from collections.abc import Collection
from typing import cast

from .bundle import MeasuredCosine, Modalities, Quantisation, graphs_of
from .checkpoint import Checkpoint
from .graphs.weights import CheckpointParameters
from .portable_bundle import DraftBundle
from .progress import Report
from .quantise.activation_ranges import Ranges
from .quantise.exclusion_search import ExclusionSearch
from .quantise.folds import linear_layers
from .quantise.held_out import HeldOut
from .quantise.options import QuantiseOptions, accuracy_threshold, check_quantise_options
from .quantise.quantisation_plan import QuantisationPlan, check_plan, plan_quantisation
from .samples import held_out_inputs_file
from .spec import GraphName, IntegerPrecision, ModelSpec, Precision


def first_plan(
    checkpoint: Checkpoint,
    schemes: dict[GraphName, IntegerPrecision],
    ranges: Ranges,
    excluded: Collection[str],
    report: Report = lambda _: None,
) -> QuantisationPlan:
    """Choose scales for all layers except the excluded ones. Names in `excluded` that are not linear layers are ignored."""
    report("choosing scales")
    read = CheckpointParameters(checkpoint.tensors, checkpoint.model)
    layers = set(linear_layers(checkpoint.model))
    return plan_quantisation(checkpoint.model, read, ranges, schemes, [layer for layer in excluded if layer in layers])


def write_quantised(
    draft: DraftBundle, plan: QuantisationPlan, ranges: Ranges, options: QuantiseOptions, report: Report = lambda _: None
) -> Quantisation:
    """Write a draft's graphs quantised. Exclude only as many layers as the accuracy threshold requires.

    Returns the manifest's entry. Raises PlumeExportError if the threshold cannot be reached.
    """
    threshold = accuracy_threshold(draft.manifest.precision, options.min_cosine)
    measured: MeasuredCosine | None = None
    if options.min_cosine == 0:
        report("writing weights")
        draft.write_graphs(plan)
    else:
        held_out = HeldOut(draft.checkpoint, held_out_inputs_file(), draft.manifest.modalities, report)
        search = ExclusionSearch(plan, threshold, report)
        while not search.is_finished:
            search.add(held_out.measure(draft.write_graphs(search.plan)))
        plan, measured = search.plan, search.measured
    return Quantisation(
        graphs=plan.graphs,
        kept={layer: plan.saved_bytes[layer] for layer in plan.excluded if layer in plan.saved_bytes},
        calibration_inputs=ranges.about.inputs,
        calibration_sha256=ranges.about.inputs_sha256,
        weight_only=plan.weight_only,
        min_cosine=threshold,
        measured=measured,
    )


def checked_schemes(
    model: ModelSpec, precision: Precision, modalities: Modalities, options: QuantiseOptions
) -> dict[GraphName, IntegerPrecision]:
    """Return the precision of each quantised graph. Raises PlumeExportError for options that do not fit the model."""
    graphs = graphs_of(modalities)
    check_quantise_options(precision, graphs, options)
    schemes = dict(options.schemes or dict.fromkeys(graphs, cast(IntegerPrecision, precision)))
    check_plan(model, schemes, options.excluded)
    return schemes
