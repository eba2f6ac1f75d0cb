"""int8 weights become uint8 once, in the graphs and in the files, and results stay what they were."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from plume_export.builders.onnxruntime.compiled_weights import ADDED_WEIGHTS, INLINE_BYTES, CompiledWeights
from plume_export.builders.onnxruntime.unsigned_weights import UnsignedWeights
from plume_export.bundle import WEIGHTS
from tests.onnx_text import check_same_results, graph_from_text, run, values

INTEGERS = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
OTHERS = -INTEGERS[:8]
MATMULS = f"""
matmuls (uint8[1, 16] x) => (float[1, 16] y, float[1, 16] z)
<int8[16, 16] weight = {values(INTEGERS)}, float level = {{0.5}}, float[16] scale = {values(np.arange(16) / 16)},
 uint8 zero = {{128}}>
{{
    y = com.microsoft.MatMulIntegerToFloat (x, weight, level, scale, zero)
    z = com.microsoft.MatMulIntegerToFloat (x, weight, level, scale, zero)
}}
"""
INPUTS = {"x": np.random.default_rng(0).integers(0, 256, (1, 16)).astype(np.uint8)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save_file({"weight": INTEGERS, "others": OTHERS}, tmp_path / WEIGHTS)
    return tmp_path


def with_stored_weight(directory: Path) -> ir.Model:
    """Return the graph with its weight in the directory's weight file."""
    model = graph_from_text(MATMULS)
    offset = (directory / WEIGHTS).read_bytes().index(INTEGERS.tobytes())
    model.graph.initializers["weight"].const_value = ir.ExternalTensor(
        WEIGHTS, offset, INTEGERS.nbytes, ir.DataType.INT8, shape=ir.Shape((16, 16)), name="weight", base_dir=directory
    )
    return model


def test_a_weight_of_two_matmuls_in_two_graphs_is_converted_once(directory: Path) -> None:
    files, graphs = CompiledWeights(directory), [with_stored_weight(directory) for _ in range(2)]
    unsigned = UnsignedWeights(files)
    assert all(unsigned(graph).modified for graph in graphs)
    files.convert_to_uint8()
    stored = load_file(directory / WEIGHTS)
    assert stored["weight"].dtype == np.uint8
    np.testing.assert_array_equal(stored["weight"], INTEGERS.astype(np.int16) + 128)
    np.testing.assert_array_equal(stored["others"], OTHERS)
    for graph in graphs:
        weight = graph.graph.initializers["weight"]
        assert weight.dtype == ir.DataType.UINT8
        assert weight.const_value is not None
        np.testing.assert_array_equal(weight.const_value.numpy(), stored["weight"])
        for node in graph.graph:
            assert [value and value.name for value in node.inputs] == ["x", "weight", "level", "scale", "zero", "zero"]


def test_results_are_the_same(tmp_path: Path) -> None:
    # One matmul: ONNX Runtime cannot convert an int8 weight that two of them read.
    model = graph_from_text(
        MATMULS.replace("z = com.microsoft.MatMulIntegerToFloat (x, weight, level, scale, zero)", "z = Neg (y)")
    )
    before = run(model, INPUTS)
    assert UnsignedWeights(CompiledWeights(tmp_path))(model).modified
    check_same_results(before, run(model, INPUTS), atol=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_whose_dtype_only_its_tensor_has(tmp_path: Path) -> None:
    """As passes make new weights."""
    model = graph_from_text(MATMULS)
    model.graph.initializers["weight"].dtype = None
    assert UnsignedWeights(CompiledWeights(tmp_path))(model).modified
    weight = model.graph.initializers["weight"]
    assert weight.const_value is not None
    assert weight.dtype == weight.const_value.dtype == ir.DataType.UINT8


def test_a_weight_that_another_operator_reads_is_an_error(tmp_path: Path) -> None:
    text = MATMULS.replace("z = com.microsoft.MatMulIntegerToFloat", "z = com.microsoft.Another")
    with pytest.raises(ir.passes.PreconditionError, match="weight is read by Another, not only by matmuls"):
        UnsignedWeights(CompiledWeights(tmp_path))(graph_from_text(text))


def test_weights_that_no_matmul_reads_stay(tmp_path: Path) -> None:
    text = MATMULS.replace("MatMulIntegerToFloat", "Another")
    model = graph_from_text(text)
    assert not UnsignedWeights(CompiledWeights(tmp_path))(model).modified
    assert model.graph.initializers["weight"].dtype == ir.DataType.INT8
    assert [len(node.inputs) for node in model.graph] == [5, 5]


def test_an_added_weight_has_no_header(directory: Path) -> None:
    before = (directory / WEIGHTS).read_bytes()
    files = CompiledWeights(directory)
    large = np.resize(INTEGERS, (INLINE_BYTES // 16, 16))
    stored = [files.add("large", large), files.add("large", large)]
    assert stored[0] is stored[1]
    converted = files.uint8_from_int8(stored[0])
    files.convert_to_uint8()
    assert (directory / ADDED_WEIGHTS).stat().st_size == large.nbytes
    np.testing.assert_array_equal(converted.numpy(), large.astype(np.int16) + 128)
    assert (directory / WEIGHTS).read_bytes() == before
