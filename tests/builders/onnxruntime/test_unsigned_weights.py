"""int8 weights become uint8 once, in the graphs and in the files, and products stay what they were."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from plume_export.builders.onnxruntime.unsigned_weights import FilePart, add_128, take_unsigned_weights
from plume_export.bundle import WEIGHTS
from plume_export.machine.software import ONNXRUNTIME_DOMAIN

INTEGERS = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
OTHERS = -INTEGERS[:8]


def graph_of(weight: ir.TensorProtocol | None, operators: list[str]) -> ir.Model:
    """A graph whose nodes all read one weight, inline where it is None."""
    nodes = [
        helper.make_node(operator, ["x", "weight", "level", "scale", "zero"], [f"y{number}"], domain=ONNXRUNTIME_DOMAIN)
        for number, operator in enumerate(operators)
    ]
    arrays = {"weight": INTEGERS, "level": np.float32(1), "scale": np.ones(16, np.float32), "zero": np.uint8(128)}
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 16])
    y = [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, [1, 16]) for number in range(len(operators))]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ONNXRUNTIME_DOMAIN, 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], y, constants), opset_imports=opsets, ir_version=10)
    graph = ir.from_proto(model)
    if weight is not None:
        graph.graph.initializers["weight"].const_value = weight
    return graph


def weight_of(directory: Path) -> ir.ExternalTensor:
    """The tensor `weight` of the directory's weight file, as a graph names it."""
    whole = (directory / WEIGHTS).read_bytes()
    offset = whole.index(INTEGERS.tobytes())
    return ir.ExternalTensor(
        WEIGHTS, offset, INTEGERS.nbytes, ir.DataType.INT8, shape=ir.Shape((16, 16)), name="weight", base_dir=directory
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save_file({"weight": INTEGERS, "others": OTHERS}, tmp_path / WEIGHTS)
    return tmp_path


def test_a_weight_of_two_products_in_two_graphs_is_changed_once(directory: Path) -> None:
    graphs = [graph_of(weight_of(directory), ["MatMulIntegerToFloat"] * 2) for _ in range(2)]
    parts = [part for graph in graphs for part in take_unsigned_weights(graph)]
    assert len(parts) == 2
    add_128(directory, parts)
    stored = load_file(directory / WEIGHTS)
    assert stored["weight"].dtype == np.uint8
    np.testing.assert_array_equal(stored["weight"], INTEGERS.astype(np.int16) + 128)
    np.testing.assert_array_equal(stored["others"], OTHERS)
    for graph in graphs:
        weight = graph.graph.initializers["weight"]
        assert weight.const_value is not None
        np.testing.assert_array_equal(weight.const_value.numpy(), stored["weight"])
        for node in graph.graph:
            assert [value and value.name for value in node.inputs] == ["x", "weight", "level", "scale", "zero", "zero"]


def test_a_weight_in_the_graph_is_changed_there() -> None:
    graph = graph_of(None, ["MatMulIntegerToFloat"] * 2)
    assert take_unsigned_weights(graph) == set()
    weight = graph.graph.initializers["weight"]
    assert weight.const_value is not None
    assert weight.dtype == weight.const_value.dtype == ir.DataType.UINT8
    np.testing.assert_array_equal(weight.const_value.numpy(), INTEGERS.astype(np.int16) + 128)


def test_a_weight_that_something_else_reads_stops_it() -> None:
    with pytest.raises(AssertionError):
        take_unsigned_weights(graph_of(None, ["MatMulIntegerToFloat", "SomethingElse"]))


def test_other_files_have_no_header(tmp_path: Path) -> None:
    save_file({"others": OTHERS}, tmp_path / WEIGHTS)
    (tmp_path / "added.bin").write_bytes(b"head" + INTEGERS.tobytes() + b"tail")
    before = (tmp_path / WEIGHTS).read_bytes()
    add_128(tmp_path, [FilePart("added.bin", 4, INTEGERS.nbytes)])
    assert (tmp_path / "added.bin").read_bytes() == b"head" + bytes(range(256)) + b"tail"
    assert (tmp_path / WEIGHTS).read_bytes() == before
