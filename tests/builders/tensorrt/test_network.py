"""A parsed network against its contract, its precision, and the ranges of its axes."""

from typing import Any

import msgspec
import pytest

from plume_export.builders.tensorrt.network import (
    axis_ranges,
    check_inputs_and_outputs,
    check_layer_dtypes,
    network_from_onnx,
)
from plume_export.bundle import Bundle
from plume_export.errors import PlumeExportError
from plume_export.machine.tensorrt_log import new_log
from plume_export.machine.tensorrt_variant import Variant, import_variant
from plume_export.recipe import AxisRange, ShapeRanges
from plume_export.spec import GraphSpec, TensorSpec


@pytest.fixture
def variant() -> Variant:
    return import_variant("tensorrt-rtx")


@pytest.fixture
def prefill(tiny_fp16: Bundle, variant: Variant) -> Any:
    """The network; its parser lives as long, since it owns the weights."""
    log = new_log(variant)
    network, parser = network_from_onnx(variant, variant.trt.Builder(log), log, tiny_fp16.graph_file("prefill"))
    yield network
    del parser


def changed(spec: GraphSpec, which: str, name: str, fields: dict[str, Any]) -> GraphSpec:
    tensors = [msgspec.structs.replace(tensor, **fields) if tensor.name == name else tensor for tensor in getattr(spec, which)]
    return msgspec.structs.replace(spec, **{which: tuple(tensors)})


@pytest.mark.parametrize(
    ("which", "name", "fields", "message"),
    [
        ("inputs", "input_ids", {"dtype": "float32"}, r"input input_ids is int64 \[-1, -1\]; expected float32"),
        ("inputs", "input_ids", {"axes": ("batch",)}, r"int64 \[-1, -1\]; expected int64 \[-1\]"),
        ("inputs", "input_ids", {"axes": ("batch", 7)}, r"expected int64 \[-1, 7\]"),
        ("inputs", "input_ids", {"name": "ids"}, "input ids is missing; expected int64"),
        ("outputs", "state", {"axes": ("batch", 127)}, r"output state is float32 \[-1, 128\]; .* float32 \[-1, 127\]"),
        ("outputs", "state", {"axes": ("batch", "hidden")}, r"output state is float32 \[-1, 128\]; .* float32 \[-1, -1\]"),
        ("outputs", "prefix_keys_0", {"dtype": "bfloat16"}, "output prefix_keys_0 is float16"),
    ],
)
@pytest.mark.slow
def test_a_tensor_that_differs_from_the_contract(
    tiny_fp16: Bundle, variant: Variant, prefill: Any, which: str, name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlumeExportError, match=message):
        check_inputs_and_outputs(variant, prefill, changed(tiny_fp16.manifest.graphs["prefill"], which, name, fields))


def test_tensors_beside_the_contract(tiny_fp16: Bundle, variant: Variant, prefill: Any) -> None:
    spec = tiny_fp16.manifest.graphs["prefill"]
    fewer = msgspec.structs.replace(spec, inputs=spec.inputs[:-1])
    with pytest.raises(PlumeExportError, match="an unexpected input: anchor_index"):
        check_inputs_and_outputs(variant, prefill, fewer)
    weight = TensorSpec("decoder.layers.0.qkv_proj.weight", "float16", (128, 256))
    more = msgspec.structs.replace(spec, inputs=(*spec.inputs, weight))
    with pytest.raises(PlumeExportError, match=r"input decoder\.layers\.0\.qkv_proj\.weight is missing"):
        check_inputs_and_outputs(variant, prefill, more)


@pytest.mark.parametrize("wrong", ["fp32", "bf16"])
def test_another_precision(variant: Variant, prefill: Any, wrong: Any) -> None:
    with pytest.raises(PlumeExportError, match=f"the bundle's precision is {wrong}"):
        check_layer_dtypes(variant, prefill, wrong)


def test_ranges_of_the_axes(tiny_fp16: Bundle) -> None:
    ranges = axis_ranges(
        ShapeRanges(AxisRange(1, 2, 4), AxisRange(16, 64, 512), AxisRange(4, 16, 128)), tiny_fp16.manifest.model, 3
    )
    assert ranges["patches"] == (16, 64, 512)
    assert ranges["suffix_tokens"] == (0, 0, 3)
    assert ranges["visual_tokens"] == (4, 16, 2048)
