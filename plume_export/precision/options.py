"""What the user says about integers: which graph in which precision, what is kept out, and what is promised."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from ..errors import PlumeExportError
from ..spec import COMPUTE_DTYPE, GRAPH_NAMES, INTEGER_PRECISIONS, PRECISIONS, GraphName, IntegerPrecision, Precision

# Whose int8: this toolkit's, or that of NVIDIA's ModelOpt.
Quantizer = Literal["own", "modelopt"]
QUANTIZERS: tuple[Quantizer, ...] = get_args(Quantizer)
# The least cosine of an embedding with the float32 one that a build accepts; int4 promises nothing.
_PROMISES: dict[Precision, float | None] = {"int8": 0.99, "int8-weight": 0.99, "int4-weight": None}
_COARSEST_FIRST: tuple[Precision, ...] = ("int4-weight", "int8", "int8-weight")


@dataclass(frozen=True)
class GraphPrecisions:
    """`name` stands for all of them: the coarsest. `schemes` are the graphs in integers; the others are in float16."""

    name: Precision
    schemes: Mapping[GraphName, IntegerPrecision]


@dataclass(frozen=True)
class QuantiseOptions:
    """How to quantise. `schemes` empty: all graphs in the precision of the bundle.

    Without `ranges_file` the checkpoint is calibrated on the inputs that ship. `min_cosine` None is the precision's default;
    0 leaves out the measurement too. `kept` are layers that stay in 16 bit. The quantizer `modelopt` calibrates by itself and
    promises nothing unless `min_cosine` is given.
    """

    schemes: Mapping[GraphName, IntegerPrecision] = field(default_factory=dict)
    ranges_file: Path | None = None
    min_cosine: float | None = None
    kept: tuple[str, ...] = ()
    quantizer: Quantizer = "own"


def promise_of(precision: Precision, min_cosine: float | None) -> float | None:
    """Return the cosine that every embedding has to reach; None where nothing is promised."""
    return _PROMISES[precision] if min_cosine is None else min_cosine or None


def precisions_from_text(text: str) -> GraphPrecisions:
    """Read one precision for all graphs, or `vision_encoder=int8,prefill=int8,latent_step=int8-weight`.

    Raises PlumeExportError for what is not a precision, and for a graph that is missing, unknown or named twice.
    """
    if "=" not in text:
        precision = _precision(text, PRECISIONS)
        is_integer = precision in INTEGER_PRECISIONS
        return GraphPrecisions(precision, dict.fromkeys(GRAPH_NAMES, cast(IntegerPrecision, precision)) if is_integer else {})
    pairs = [part.partition("=") for part in text.split(",")]
    if sorted(graph for graph, _, _ in pairs) != sorted(GRAPH_NAMES):
        raise PlumeExportError(
            f"The precisions {text!r} name {', '.join(graph for graph, _, _ in pairs)}; expected each of "
            f"{', '.join(GRAPH_NAMES)} once.",
            fix="--precision vision_encoder=int8,prefill=int8,latent_step=int8-weight",
        )
    chosen = {graph: _precision(precision, ("fp16", *INTEGER_PRECISIONS)) for graph, _, precision in pairs}
    name: Precision = next((precision for precision in _COARSEST_FIRST if precision in chosen.values()), "fp16")
    schemes = {graph: cast(IntegerPrecision, chosen[graph]) for graph in GRAPH_NAMES if chosen[graph] != "fp16"}
    return GraphPrecisions(name, schemes)


def check_meant_for_integers(precision: Precision, options: QuantiseOptions) -> None:
    """Raise for options that only integers have, given with another precision."""
    if precision not in INTEGER_PRECISIONS and (options.kept or options.min_cosine is not None):
        raise PlumeExportError(
            f"--min-cosine and --keep are for integers; the precision is {precision}.",
            fix=f"--precision {' or '.join(INTEGER_PRECISIONS)}, or leave them out",
        )
    if COMPUTE_DTYPE[precision] != "float16" and options.ranges_file is not None:
        raise PlumeExportError(f"--ranges is for integers and fp16; the precision is {precision}.", fix="leave it out")


def check_meant_for_modelopt(precision: Precision, options: QuantiseOptions) -> None:
    """Raise for what ModelOpt is not asked for here: other integers, some of the graphs, layers or ranges of ours."""
    if options.quantizer != "modelopt":
        return
    if precision != "int8" or options.schemes != dict.fromkeys(GRAPH_NAMES, "int8"):
        chosen = ", ".join(f"{graph}={scheme}" for graph, scheme in options.schemes.items()) or precision
        raise PlumeExportError(
            f"--quantizer modelopt is for int8 in all graphs; the precision is {chosen}.", fix="--precision int8"
        )
    if options.kept or options.ranges_file is not None:
        raise PlumeExportError(
            "--keep and --ranges are for plume-export's own quantizer; modelopt chooses layers and ranges by itself.",
            fix="leave them out, or --quantizer own",
        )


def _precision(text: str, allowed: tuple[Precision, ...]) -> Precision:
    for precision in allowed:
        if text == precision:
            return precision
    raise PlumeExportError(f"There is no precision {text!r} here.", fix=f"one of {', '.join(allowed)}")
