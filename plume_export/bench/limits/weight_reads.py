"""The bytes of weights that one pass of each graph reads, counted from the bundle's own files."""

import warnings
from dataclasses import dataclass

from ...bundle import Bundle
from ...plan import bytes_read_by_pass
from ...spec import GraphName
from .products import is_on_gpu


@dataclass(frozen=True)
class WeightReads:
    """Bytes that every pass reads, and those of one row of the tables that a pass takes rows from."""

    whole: int
    row: int

    def bytes_of(self, rows: int) -> int:
        return self.whole + rows * self.row


def weight_reads(bundle: Bundle, graph: GraphName) -> WeightReads:
    """Return what a pass of a graph reads.

    Of engines, which hold their weights in a form of their own, what the model's dimensions and precision say (plan.py).
    """
    manifest = bundle.manifest
    if manifest.engines is not None:
        return WeightReads(bytes_read_by_pass(manifest.model, manifest.precision, graph), 0)
    import onnx_ir as ir

    # ONNX Runtime's CPU provider widens float16 to float32 once, when it loads a graph.
    is_widened = not is_on_gpu(manifest)
    whole = row = 0
    with warnings.catch_warnings():  # onnx does not know the key by which ONNX Runtime finds prepacked weights
        warnings.filterwarnings("ignore", "Ignoring unknown external data key", UserWarning)
        model = ir.load(bundle.checked_graph_file(graph))
    for value in model.graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        size = tensor.nbytes * (2 if is_widened and tensor.dtype == ir.DataType.FLOAT16 else 1)
        if _is_only_read_by("Gather", value):
            row += size // tensor.shape.numpy()[0]
        elif not _is_only_read_by("Slice", value):  # of a cached start, which is no weight
            whole += size
    return WeightReads(whole, row)


def _is_only_read_by(operator: str, value: object) -> bool:
    """Whether an operator takes parts of a tensor, and nothing else reads it.

    Gather takes rows of the embedding table and of that of steps, Slice as much of a cached start as agrees with a prompt.
    """
    uses = list(value.uses())  # type: ignore[attr-defined]
    return bool(uses) and all(use.node.op_type == operator and use.idx == 0 for use in uses)
