"""What is quantised and how: for every linear layer its scheme and activation scale in each graph, and its migration."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import PlumeExportError
from ..graphs.weights import ReadParameter
from ..spec import INT4_BLOCK, GraphName, IntegerPrecision, ModelSpec
from .activation_ranges import LinearRange, Phase, Ranges
from .folds import folds_of, linear_layers, scale_by_producer
from .quantise_graph import EMBEDDING, SCALE
from .scales import LEVELS, choose_scales, integers, range_of, weight_scales

_Value = TypeVar("_Value")
PHASES_OF_GRAPH: dict[GraphName, tuple[Phase, ...]] = {
    "vision_encoder": ("vision",),
    "prefill": ("prefill",),
    "latent_step": ("step", "readout"),
}
# A layer's migration is chosen for the strictest precision that it has in a graph.
_STRICTEST_FIRST: tuple[IntegerPrecision, ...] = ("int8", "int4-weight", "int8-weight")
# Largest relative error of an int8 layer's output on its worst sampled input row. Above it, only the weight is in int8. Most
# such layers are the decoder's down-projections, whose input rows differ most in magnitude.
MOST_ROW_ERROR = 0.03


@dataclass(frozen=True)
class QuantisationPlan:
    """`schemes` and `activation_scales` are by graph and layer. A layer without a scheme stays in 16 bit.

    `migrations` [input channels] divide a layer's inputs. `errors` are relative errors of a layer's output on its worst sampled
    input row. `excluded` layers stay in 16 bit. `saved_bytes` is what quantising a layer saves, for excluded layers too.
    `weight_only` are layers of int8 graphs whose inputs stay in 16 bit. `graphs` has the requested precision of each graph.
    """

    schemes: dict[GraphName, dict[str, IntegerPrecision]]
    activation_scales: dict[GraphName, dict[str, float]]
    migrations: dict[str, NDArray[np.float32]]
    errors: dict[str, float]
    saved_bytes: dict[str, int]
    excluded: tuple[str, ...] = ()
    weight_only: tuple[str, ...] = ()
    graphs: dict[GraphName, IntegerPrecision] = field(default_factory=dict)

    def excluding(self, layers: Collection[str]) -> "QuantisationPlan":
        """Return the plan with more layers in 16 bit."""
        return replace(
            self,
            schemes={graph: _without(own, layers) for graph, own in self.schemes.items()},
            activation_scales={graph: _without(own, layers) for graph, own in self.activation_scales.items()},
            migrations=_without(self.migrations, layers),
            errors=_without(self.errors, layers),
            excluded=(*self.excluded, *(layer for layer in layers if layer not in self.excluded)),
            weight_only=tuple(layer for layer in self.weight_only if layer not in layers),
        )

    def scheme(self, layer: str) -> IntegerPrecision | None:
        """Return how a layer's weight is stored. It is the same in all graphs."""
        return next((schemes[layer] for schemes in self.schemes.values() if layer in schemes), None)


def plan_quantisation(
    model: ModelSpec,
    read: ReadParameter,
    ranges: Ranges,
    schemes: Mapping[GraphName, IntegerPrecision],
    excluded: Collection[str] = (),
) -> QuantisationPlan:
    """Choose scales for every layer but the `excluded` ones. `schemes` names the graphs that have integers.

    Weights are read one at a time. Raises PlumeExportError for an excluded layer that does not exist, for a layer that did not
    run in the calibration, and for graphs that share weights but need different integers.
    """
    check_plan(model, schemes, excluded)
    plan = QuantisationPlan(
        {graph: {} for graph in schemes},
        {graph: {} for graph in schemes},
        {},
        {},
        {},
        excluded=tuple(excluded),
        graphs=dict(schemes),
    )
    folds = folds_of(model)
    weight_only = []
    for layer in linear_layers(model):
        graphs = [graph for graph in schemes if (graph == "vision_encoder") == layer.startswith("visual.")]
        if not graphs:
            continue
        weight = read(f"{layer}.weight").float()
        own = {graph: _scheme_for(schemes[graph], len(weight)) for graph in graphs}
        strictest = min(own.values(), key=_STRICTEST_FIRST.index)
        plan.saved_bytes[layer] = _saved_bytes(weight, strictest)
        if layer in excluded:
            continue
        seen = _seen(ranges, layer, graphs)
        chosen = choose_scales(weight, seen, strictest, folds.get(layer))
        if strictest == "int8" and chosen.row_error > MOST_ROW_ERROR:
            weight_only.append(layer)
            own = dict.fromkeys(own, "int8-weight")
            chosen = choose_scales(weight, seen, "int8-weight", folds.get(layer))
        plan.errors[layer] = chosen.row_error
        if chosen.migration is not None:
            plan.migrations[layer] = chosen.migration
        for graph in graphs:
            plan.schemes[graph][layer] = own[graph]
            if own[graph] == "int8":
                seen_here = ranges.of(layer, PHASES_OF_GRAPH[graph]) or seen
                plan.activation_scales[graph][layer] = range_of(weight, seen_here, chosen.migration)
    return replace(plan, weight_only=tuple(weight_only))


def check_plan(model: ModelSpec, schemes: Mapping[GraphName, IntegerPrecision], excluded: Collection[str]) -> None:
    """Raise PlumeExportError for a layer that does not exist, and for schemes that cannot share the decoder's weights."""
    _check_excluded(excluded, linear_layers(model))
    _check_shared(schemes)


def _seen(ranges: Ranges, layer: str, graphs: Collection[GraphName]) -> LinearRange:
    seen = ranges.of(layer, [phase for graph in graphs for phase in PHASES_OF_GRAPH[graph]])
    if seen is None:
        raise PlumeExportError(
            f"The layer {layer} did not run in the calibration.", fix="calibrate with inputs of every kind, images too"
        )
    return seen


class QuantisedParameters:
    """Reads the parameters of quantised graphs: migrated, weights as integers, with their scales."""

    def __init__(self, model: ModelSpec, read: ReadParameter, plan: QuantisationPlan) -> None:
        self._read, self._plan = read, plan
        self._divided = scale_by_producer(folds_of(model), plan.migrations)
        self._known_scales: dict[str, Tensor] = {}  # of weights that were read before their scales

    def __call__(self, name: str) -> Tensor:
        """Return a parameter of the quantised graphs by name."""
        if name.endswith(SCALE):
            return self._scales(name.removesuffix(SCALE))
        layer = name.removesuffix(".weight")
        scheme = self._plan.scheme(layer)
        if name == EMBEDDING and "prefill" in self._plan.schemes:
            return self._integers(name, self._read(name).float().T, "int8-weight").T
        if scheme is None or name == layer:
            return self._folded(name)
        return self._integers(name, self._folded(name), scheme)

    def _integers(self, name: str, weight: Tensor, scheme: IntegerPrecision) -> Tensor:
        self._known_scales[name] = weight_scales(weight, scheme)
        return integers(weight, self._known_scales[name], scheme)

    def _scales(self, name: str) -> Tensor:
        if name in self._known_scales:
            return self._known_scales.pop(name)
        if name == EMBEDDING:
            return weight_scales(self._read(name).float().T, "int8-weight")
        scheme = self._plan.scheme(name.removesuffix(".weight"))
        assert scheme is not None
        return weight_scales(self._folded(name), scheme)

    def _folded(self, name: str) -> Tensor:
        """Return a parameter with migrations: a layer's weight is multiplied by its own, and its producer is divided."""
        tensor = self._read(name)
        layer, _, kind = name.rpartition(".")
        if layer in self._divided:
            channels, scale = self._divided[layer]
            tensor = tensor.float().clone()
            tensor[..., channels] /= torch.from_numpy(scale)
        if kind == "weight" and layer in self._plan.migrations:
            tensor = tensor.float() * torch.from_numpy(self._plan.migrations[layer])[:, None]
        return tensor


def _check_shared(schemes: Mapping[GraphName, IntegerPrecision]) -> None:
    """Raise PlumeExportError for different weights of prefill and latent step, which share the decoder's."""
    prefill, step = schemes.get("prefill"), schemes.get("latent_step")
    if (prefill and LEVELS[prefill]) != (step and LEVELS[step]):
        raise PlumeExportError(
            f"prefill is {prefill or 'fp16'} and latent_step is {step or 'fp16'}, but they share their weights.",
            fix="choose fp16 or int4-weight for both, or int8 and int8-weight in any combination",
        )


def _scheme_for(scheme: IntegerPrecision, inputs: int) -> IntegerPrecision:
    """Return int8-weight instead of int4-weight for a layer whose input channels are not a multiple of the block size."""
    return "int8-weight" if scheme == "int4-weight" and inputs % INT4_BLOCK else scheme


def _saved_bytes(weight: Tensor, scheme: IntegerPrecision) -> int:
    """Return the bytes saved compared with a float16 weight, with the scales counted."""
    values, outputs = weight.numel(), weight.shape[1]
    if scheme == "int4-weight":
        return 2 * values - values // 2 - 2 * values // INT4_BLOCK
    return 2 * values - values - 2 * outputs


def _without(layers: Mapping[str, _Value], left_out: Collection[str]) -> dict[str, _Value]:
    return {layer: value for layer, value in layers.items() if layer not in left_out}


def _check_excluded(excluded: Collection[str], layers: list[str]) -> None:
    for name in excluded:
        if name not in layers:
            raise PlumeExportError(
                f"There is no quantised layer {name!r}.", fix=f"choose layers such as {layers[0]} or {layers[-1]}"
            )
