"""Linear layers whose values come near the largest float16 number. They stay in float32."""

from collections.abc import Mapping

from ..errors import PlumeExportError
from .activation_ranges import PHASES, Ranges

FLOAT16_MAX = 65504.0
# Share of the largest number from which on a layer stays in float32: other inputs may have larger values.
MARGIN = 0.25
# Their outputs are queries, keys and values, which attention takes in the graph's precision.
_ATTENTION_INPUTS = ("qkv_proj", "qkv")
_EXPERTS = "transition.experts"


def guarded_layers(ranges: Ranges) -> dict[str, float]:
    """Return the layers that stay in float32, in the order of the computation, with their largest magnitude.

    The experts count as one layer. Raises PlumeExportError if queries, keys or values come near the largest number.
    """
    limit = MARGIN * FLOAT16_MAX
    kept: dict[str, float] = {}
    for name in dict.fromkeys(name for phase in PHASES for name in ranges.linears.get(phase, {})):
        seen = ranges.of(name)
        assert seen is not None
        if seen.output_abs_max > limit and name.rsplit(".", 1)[-1] in _ATTENTION_INPUTS:
            raise PlumeExportError(
                f"The output of {name} reaches {seen.output_abs_max:,.0f}; float16 ends at {FLOAT16_MAX:,.0f}, and attention "
                "cannot be kept in float32.",
                fix="--precision bf16",
            )
        largest = max(float(seen.input_abs_max.max()), seen.output_abs_max)
        if largest > limit:
            layer = _EXPERTS if name.startswith(_EXPERTS) else name
            kept[layer] = max(kept.get(layer, 0.0), largest)
    return kept


def guard_text(kept: Mapping[str, float], ranges: Ranges) -> str:
    """Return a text with the layers that stay in float32, or with the largest magnitude if all fit float16."""
    if kept:
        layers = ", ".join(f"{name} ({largest:,.0f})" for name, largest in kept.items())
        return f"kept in float32, with magnitudes near or over float16's {FLOAT16_MAX:,.0f}: {layers}"
    magnitudes = {
        name: max(float(seen.input_abs_max.max()), seen.output_abs_max)
        for linears in ranges.linears.values()
        for name, seen in linears.items()
    }
    largest = max(magnitudes, key=magnitudes.__getitem__)
    return f"all layers fit float16: the largest magnitude is {magnitudes[largest]:,.0f}, at {largest}"
