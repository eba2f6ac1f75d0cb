"""Options of quantisation: the precision of each graph, excluded layers and the accuracy threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ..errors import OptionError
from ..spec import COMPUTE_DTYPE, GRAPH_NAMES, INTEGER_PRECISIONS, PRECISIONS, GraphName, IntegerPrecision, Precision

# The lowest cosine of an embedding with the float32 one that a build accepts; int4 has no threshold.
_THRESHOLDS: dict[Precision, float | None] = {"int8": 0.99, "int8-weight": 0.99, "int4-weight": None}
_EXAMPLE: dict[GraphName, Precision] = {"vision_encoder": "int8", "prefill": "int8", "latent_step": "int8-weight"}
_COARSEST_FIRST: tuple[Precision, ...] = ("int4-weight", "int8", "int8-weight")


@dataclass(frozen=True)
class GraphPrecisions:
    """The precision of each graph. `schemes` has the quantised graphs; the others are in float16. `name` is the coarsest."""

    name: Precision
    schemes: Mapping[GraphName, IntegerPrecision]


@dataclass(frozen=True)
class QuantiseOptions:
    """How to quantise. Without `schemes`, all graphs have the precision of the bundle.

    Without `ranges_file`, the checkpoint is calibrated with the included inputs. `min_cosine` is the accuracy threshold: None
    is the precision's default, and 0 skips the measurement. `excluded` layers stay in 16 bit.
    """

    schemes: Mapping[GraphName, IntegerPrecision] = field(default_factory=dict)
    ranges_file: Path | None = None
    min_cosine: float | None = None
    excluded: tuple[str, ...] = ()


def accuracy_threshold(precision: Precision, min_cosine: float | None) -> float | None:
    """Return the minimum cosine of every embedding with its float32 embedding, or None without a threshold."""
    return _THRESHOLDS[precision] if min_cosine is None else min_cosine or None


def precisions_from_text(text: str, graphs: Sequence[GraphName] = GRAPH_NAMES) -> GraphPrecisions:
    """Read one precision for all graphs, or `vision_encoder=int8,prefill=int8,latent_step=int8-weight`.

    `graphs` are those that are built. Raises OptionError for an unknown precision, and for a graph that is missing, unknown,
    named twice or not built.
    """
    if "=" not in text:
        precision = _precision(text, PRECISIONS)
        is_integer = precision in INTEGER_PRECISIONS
        return GraphPrecisions(precision, dict.fromkeys(graphs, cast(IntegerPrecision, precision)) if is_integer else {})
    pairs = [tuple(side.strip() for side in part.split("=", 1)) for part in text.split(",")]
    named = [pair[0] for pair in pairs]
    if sorted(named) != sorted(graphs) or any(len(pair) < 2 for pair in pairs):
        not_built = [graph for graph in GRAPH_NAMES if graph in named and graph not in graphs]
        reason = f", and {', '.join(not_built)} is not built" if not_built else ""
        raise OptionError(
            f"The precisions {text!r} name {', '.join(named)}; expected each of {', '.join(graphs)} once{reason}.",
            fix="--precision " + ",".join(f"{graph}={_EXAMPLE[graph]}" for graph in graphs),
        )
    chosen = {graph: _precision(precision, ("fp16", *INTEGER_PRECISIONS)) for graph, precision in pairs}
    schemes = {graph: cast(IntegerPrecision, chosen[graph]) for graph in graphs if chosen[graph] != "fp16"}
    return GraphPrecisions(_coarsest(schemes), schemes)


def check_quantise_options(precision: Precision, graphs: Sequence[GraphName], options: QuantiseOptions) -> None:
    """Raise OptionError for options that exclude each other. `graphs` are those that are built."""
    not_built = [graph for graph in options.schemes if graph not in graphs]
    if not_built:
        raise OptionError(
            f"The graph {not_built[0]} has the precision {options.schemes[not_built[0]]} but is not built; the built graphs "
            f"are {', '.join(graphs)}.",
            fix="name only the graphs that are built, or use --modalities all",
        )
    if options.schemes and _coarsest(options.schemes) != precision:
        chosen = ", ".join(f"{graph}={scheme}" for graph, scheme in options.schemes.items())
        raise OptionError(
            f"The precision is {precision} but the graphs have {chosen}; expected the coarsest of these.",
            fix=f"--precision {_coarsest(options.schemes)}",
        )
    if options.min_cosine is not None and not 0 <= options.min_cosine <= 1:
        raise OptionError(f"min_cosine is {options.min_cosine}; expected 0 to 1.", fix="--min-cosine 0.99")
    check_meant_for_integers(precision, options)


def check_meant_for_integers(precision: Precision, options: QuantiseOptions) -> None:
    """Raise OptionError for options of integer precisions that are given with another precision."""
    if precision not in INTEGER_PRECISIONS and (options.excluded or options.min_cosine is not None):
        raise OptionError(
            f"An accuracy threshold and excluded layers are for integer precisions; the precision is {precision}.",
            fix=f"--precision {' or '.join(INTEGER_PRECISIONS)}, or omit --min-cosine and --exclude",
        )
    if COMPUTE_DTYPE[precision] != "float16" and options.ranges_file is not None:
        raise OptionError(f"Ranges are for integer precisions and fp16; the precision is {precision}.", fix="omit --ranges")


def _coarsest(schemes: Mapping[GraphName, IntegerPrecision]) -> Precision:
    """Return the coarsest precision of the graphs. Those without a scheme are in float16."""
    return next((precision for precision in _COARSEST_FIRST if precision in schemes.values()), "fp16")


def _precision(text: str, allowed: tuple[Precision, ...]) -> Precision:
    for precision in allowed:
        if text == precision:
            return precision
    raise OptionError(f"Unknown precision {text!r}.", fix=f"choose one of {', '.join(allowed)}")
