"""Audit a built engine from its sizes.

Three faults cost memory on the device without changing a result: weights that are held more than once, a file that is larger
than weights and code, and weights that are copied into another layout in every run. (TensorRT-RTX 1.7 does that with 94 MB of
the 2B model's experts if shared weights meet a profile of a single prompt.) The first fault is proven by the size that the
builder reports, invalidates the memory plan, and fails the build. The other two are only reported: the size of code was
measured for TensorRT-RTX only, and a copy may be affordable.
"""

from collections.abc import Collection, Iterable
from math import prod

import msgspec

from ...bundle import EngineEntry
from ...errors import PlumeExportError
from ...spec import GraphName
from .engine_layers import EngineLayer

# Tolerance over the graph's initializers, for folded constants and alignment. Measured: at most 0.1 %.
_WEIGHTS_SHARE = 0.03
_WEIGHTS_BYTES = 16 << 10
# Size of an engine's code and tables, per layer or as a share of its weights. TensorRT-RTX 1.7 takes 64 to 98 kB per layer.
_CODE_BYTES_OF_LAYER = 128 << 10
_CODE_SHARE = 0.03
# Smaller constants are ignored, because copying them costs little.
_LEAST_COPIED_BYTES = 1 << 16
_DTYPE_BYTES = {"Float": 4, "Half": 2, "BFloat16": 2}


class Finding(msgspec.Struct, frozen=True):
    """One conclusion from the sizes, as a sentence. A defect fails the build."""

    text: str
    is_defect: bool


class Audit(msgspec.Struct, frozen=True):
    """The audited sizes of an engine; None if the builder did not report a size."""

    engine_over_weights: float | None
    code_bytes_of_layer: float | None
    weights_over_initializers: float | None
    copied_weight_bytes: int | None
    activation_bytes: int | None
    findings: tuple[Finding, ...]


def audit_engine(entry: EngineEntry) -> Audit:
    """Audit an engine by the sizes that its builder reported."""
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
    """Raise PlumeExportError if an engine is defective."""
    for finding in audit_engine(entry).findings:
        if finding.is_defect:
            raise PlumeExportError(
                f"The engine of {graph} {finding.text}",
                fix='set weights = "shared" in your own recipe to keep one copy of the large weights; please report this',
            )


def copied_weight_bytes(layers: Iterable[EngineLayer], graph_inputs: Collection[str]) -> int:
    """Return the bytes of weights that layers rewrite completely in every run.

    A weight is a tensor that a layer reads and that neither another layer nor the caller (`graph_inputs`) writes. A layer that
    reads only a weight and writes as many values copies it; a matmul also reads an activation.
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
    text = f"holds {held:,} bytes of weights but its graph has {stored:,}: some weights are held more than once."
    return Finding(text, is_defect=True)


def _more_than_code(entry: EngineEntry) -> Finding | None:
    if entry.weights_bytes is None or entry.layers is None:
        return None
    rest = entry.bytes - entry.weights_bytes
    allowed = max(entry.layers * _CODE_BYTES_OF_LAYER, int(_CODE_SHARE * entry.weights_bytes))
    if rest <= allowed:
        return None
    text = f"has {rest:,} bytes besides its weights; the code of {entry.layers} layers takes at most {allowed:,}."
    return Finding(text, is_defect=False)


def _copied_weights(entry: EngineEntry) -> Finding | None:
    if not entry.copied_weight_bytes:
        return None
    text = f"copies {entry.copied_weight_bytes:,} bytes of weights into another layout in every run."
    return Finding(text, is_defect=False)
