"""The portable graphs hold only what TensorRT 10.0's ONNX parser takes."""

import csv
from pathlib import Path

import onnx_ir as ir
import pytest

from plume_export.bundle import Bundle
from plume_export.spec import GRAPH_NAMES

TABLE = Path(__file__).parent / "tensorrt-10-onnx-operators.csv"
TABLE_TYPES = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "INT64": "INT64", "BOOL": "BOOL"}


def read_table() -> dict[str, dict[str, str]]:
    with TABLE.open(newline="") as file:
        return {row["op"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", ["tiny_fp32", "tiny_fp16", "tiny_bf16", "plume_tiny_fp16", "plume_tiny_bf16"])
def test_only_operators_and_types_of_tensorrt_10(name: str, request: pytest.FixtureRequest) -> None:
    """The type that counts is that of an operator's first input, its data."""
    bundle: Bundle = request.getfixturevalue(name)
    table = read_table()
    for graph in GRAPH_NAMES:
        model = ir.load(bundle.graph_file(graph))
        assert dict(model.graph.opset_imports) == {"": 20}
        for node in model.graph:
            row = table.get(node.op_type)
            assert row is not None, f"{graph}: {node.op_type} is not in the table"
            assert row["supported"] == "Y", f"{graph}: {node.op_type} is not supported"
            assert node.domain == ""
            assert node.inputs[0] is not None
            assert node.inputs[0].dtype is not None
            dtype = TABLE_TYPES[node.inputs[0].dtype.name]
            assert dtype in row["types"].split(", "), f"{graph}: {node.op_type} of {dtype}"
            if row["restrictions"].startswith("`axes` must be"):
                which = 3 if node.op_type == "Slice" else 1
                axes = [value for value in node.inputs[which : which + 1] if value is not None]
                assert all(value.is_initializer() for value in axes), f"{graph}: {node.op_type} with computed axes"


def test_weights_are_stored_once(tiny_fp32: Bundle) -> None:
    """Every graph's weights lie in the one weight file, prefill's and latent_step's decoder at the same bytes."""
    ranges: dict[str, dict[str, tuple[int | None, int | None]]] = {}
    for name in GRAPH_NAMES:
        initializers = ir.load(tiny_fp32.graph_file(name)).graph.initializers
        external = {k: v.const_value for k, v in initializers.items() if isinstance(v.const_value, ir.ExternalTensor)}
        assert all(tensor.location == "weights.safetensors" for tensor in external.values())
        ranges[name] = {key: (tensor.offset, tensor.length) for key, tensor in external.items()}
    shared = {key for key in ranges["prefill"] if key.startswith("decoder.")}
    assert shared
    assert all(ranges["prefill"][key] == ranges["latent_step"][key] for key in shared)
    graph_bytes = sum(tiny_fp32.manifest.files[f"{name}.onnx"].bytes for name in GRAPH_NAMES)
    assert graph_bytes < 1_000_000
