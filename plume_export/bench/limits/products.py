"""In which numbers the matrix products of a bundle's graphs are computed, and where."""

from typing import Literal

from ...bundle import Manifest
from ...spec import COMPUTE_DTYPE, GraphName, Precision

ProductKind = Literal["float32", "float16", "bfloat16", "int8"]


def is_on_gpu(manifest: Manifest) -> bool:
    """Whether a bundle runs on a GPU."""
    return manifest.backend not in ("onnx", "onnxruntime")


def linear_products(manifest: Manifest, graph: GraphName) -> ProductKind:
    """Return what the linear layers of a graph are computed in.

    ONNX Runtime's CPU provider computes float16 graphs in float32, and integers as such only in compiled bundles.
    """
    precision = graph_precision(manifest, graph)
    if precision == "int8" and manifest.backend != "onnx":
        return "int8"
    return attention_products(manifest, graph)


def attention_products(manifest: Manifest, graph: GraphName) -> ProductKind:
    """Return what the attention of a graph is computed in: 16 bit where the graph says so, and never on a CPU."""
    kinds: dict[str, ProductKind] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}
    return kinds[COMPUTE_DTYPE[graph_precision(manifest, graph)]] if is_on_gpu(manifest) else "float32"


def graph_precision(manifest: Manifest, graph: GraphName) -> Precision:
    """Return a graph's own precision: of a bundle with integers, each graph has integers or is float16."""
    if manifest.quantisation is None:
        return manifest.precision
    return manifest.quantisation.graphs.get(graph, "fp16")
