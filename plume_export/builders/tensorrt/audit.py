"""What an engine's figures prove of it.

Three things cost memory on the device without changing a result: weights held more than once, more in the file than weights and
code, and weights that are copied into another layout in every pass (where shared weights meet a profile of one prompt alone,
TensorRT-RTX 1.7 does so with 94 MB of the 2B model's experts). The first is proven by the builder's own figure, breaks what a
plan promises for a device, and fails the build. The others are told: what code takes was measured for TensorRT-RTX only, and a
copy costs time and memory that may be there.
"""

from collections.abc import Collection, Iterable
from math import prod

import msgspec

from ...bundle import EngineEntry
from ...errors import PlumeExportError
from ...spec import GraphName
from .engine_layers import EngineLayer

# Above what the graph's initializers take: folded constants and alignment. Measured: 0.1 % at most.
_WEIGHTS_SHARE = 0.03
_WEIGHTS_BYTES = 16 << 10
# An engine's code and tables, by its layers, or a share of its weights. TensorRT-RTX 1.7 takes 64 to 98 kB a layer.
_CODE_BYTES_OF_LAYER = 128 << 10
_CODE_SHARE = 0.03
# Smaller constants may be moved about: nobody gains from their place.
_LEAST_COPIED_BYTES = 1 << 16
_DTYPE_BYTES = {"Float": 4, "Half": 2, "BFloat16": 2}


class Finding(msgspec.Struct, frozen=True):
    """What a figure shows, in a sentence. A defect fails the build."""

    text: str
    is_defect: bool


class Audit(msgspec.Struct, frozen=True):
    """The figures of an engine as they are judged; None: its builder did not tell."""

    engine_over_weights: float | None
    code_bytes_of_layer: float | None
    weights_over_initializers: float | None
    copied_weight_bytes: int | None
    activation_bytes: int | None
    findings: tuple[Finding, ...]


def audit_engine(entry: EngineEntry) -> Audit:
    """Judge an engine by what its builder told."""
    findings = (_weights_twice(entry), _more_than_code(entry), _copied_weights(entry))
    rest = None if entry.weights_bytes is None else entry.bytes - entry.weights_bytes
    return Audit(
        engine_over_weights=_ratio(entry.bytes, entry.weights_bytes),
        code_bytes_of_layer=_ratio(rest, entry.layers),
        weights_over_initializers=_ratio(entry.weights_bytes, entry.initializer_bytes),
        copied_weight_bytes=entry.copied_weight_bytes,
        activation_bytes=entry.activation_bytes,
        findings=tuple(finding for finding in findings if finding is not None),
    )


def check_engine(graph: GraphName, entry: EngineEntry) -> None:
    """Raise PlumeExportError for an engine that is proven to be defective."""
    for finding in audit_engine(entry).findings:
        if finding.is_defect:
            raise PlumeExportError(
                f"The engine of {graph} {finding.text}",
                fix='weights = "shared" in a recipe of your own keeps one copy of the large weights; please report this',
            )


def copied_weight_bytes(layers: Iterable[EngineLayer], graph_inputs: Collection[str]) -> int:
    """Return the bytes of weights that layers write again, whole, in every pass.

    A weight is what a layer reads and neither another layer nor the caller (`graph_inputs`) writes. A layer that reads nothing
    else and writes as many values copies it; a product reads an activation too.
    """
    layers = tuple(layers)
    written = {tensor.name for layer in layers for tensor in layer.outputs} | set(graph_inputs)
    copied = 0
    for layer in layers:
        if any(tensor.name in written for tensor in layer.inputs):
            continue
        sizes = {prod(tensor.shape) for tensor in layer.outputs}
        of_weights = [tensor for tensor in layer.inputs if prod(tensor.shape) in sizes]
        bytes_of = [prod(tensor.shape) * _DTYPE_BYTES.get(tensor.dtype, 1) for tensor in of_weights]
        copied += sum(size for size in bytes_of if size >= _LEAST_COPIED_BYTES)
    return copied


def _ratio(part: int | None, whole: int | None) -> float | None:
    return None if part is None or not whole else part / whole


def _weights_twice(entry: EngineEntry) -> Finding | None:
    held, stored = entry.weights_bytes, entry.initializer_bytes
    if held is None or stored is None or held <= (1 + _WEIGHTS_SHARE) * stored + _WEIGHTS_BYTES:
        return None
    text = f"holds {held:,} bytes of weights and its graph {stored:,}: some are held more than once."
    return Finding(text, is_defect=True)


def _more_than_code(entry: EngineEntry) -> Finding | None:
    if entry.weights_bytes is None or entry.layers is None:
        return None
    rest = entry.bytes - entry.weights_bytes
    allowed = max(entry.layers * _CODE_BYTES_OF_LAYER, int(_CODE_SHARE * entry.weights_bytes))
    if rest <= allowed:
        return None
    text = f"has {rest:,} bytes beside its weights, where the code of {entry.layers} layers takes {allowed:,} at most."
    return Finding(text, is_defect=False)


def _copied_weights(entry: EngineEntry) -> Finding | None:
    if not entry.copied_weight_bytes:
        return None
    text = f"copies {entry.copied_weight_bytes:,} bytes of weights into another layout in every pass."
    return Finding(text, is_defect=False)
