"""The portable graphs hold only what TensorRT 10.0's ONNX parser takes."""

import csv
from pathlib import Path

import onnx_ir as ir
import pytest

from plume_export.bundle import Bundle
from plume_export.spec import GRAPH_NAMES

TABLE = Path(__file__).parent / "tensorrt-10-onnx-operators.csv"


def read_table() -> dict[str, dict[str, str]]:
    with TABLE.open(newline="") as file:
        return {row["op"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_only_operators_and_types_of_tensorrt_10(precision: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(f"tiny_{precision}")
    table = read_table()
    for name in GRAPH_NAMES:
        model = ir.load(bundle.graph_file(name))
        assert dict(model.graph.opset_imports) == {"": 20}
        for node in model.graph:
            row = table.get(node.op_type)
            assert row is not None, f"{name}: {node.op_type} is not in the table"
            assert row["supported"] == "Y", f"{name}: {node.op_type} is not supported"
            assert node.domain == ""


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
