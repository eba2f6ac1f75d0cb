"""In which numbers products are computed."""

from plume_export.bench.limits.products import attention_products, linear_products
from plume_export.bundle import Bundle
from plume_export.spec import GRAPH_NAMES

from ..manifests import NO_PROMISE, changed


def test_products_follow_graph_and_backend(tiny_cpu: Bundle) -> None:
    cpu = changed(tiny_cpu, precision="fp16")
    assert linear_products(cpu, "prefill") == "float32"  # ONNX Runtime widens it
    gpu = changed(tiny_cpu, precision="int8", quantisation=NO_PROMISE, backend="tensorrt")
    assert [linear_products(gpu, graph) for graph in GRAPH_NAMES] == ["float16", "int8", "float16"]
    assert attention_products(gpu, "prefill") == "float16"
    portable = changed(tiny_cpu, precision="int8", quantisation=NO_PROMISE, backend="onnx")
    assert linear_products(portable, "prefill") == "float32"
