"""Graph to graph: linear layers in integers, by QuantizeLinear and DequantizeLinear.

Requires: a traced graph whose weights are initializers without data, [in, out], each the second input of one MatMul. Ensures:
the weights of the named layers become int8 or int4 initializers of the same name with `_scale` beside them; activations of
"int8" layers are quantised with one scale; all zero points are 0; nothing else changes. Source: ONNX operators QuantizeLinear
and DequantizeLinear, in the form that TensorRT fuses.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..spec import INT4_BLOCK, IntegerPrecision

SCALE = "_scale"
EMBEDDING = "embed_tokens.weight"
# The first opset whose DequantizeLinear takes blocks and int4.
BLOCK_OPSET = 21


def quantise_graph(graph: ir.Model, schemes: Mapping[str, IntegerPrecision], activation_scales: Mapping[str, float]) -> None:
    """Quantise the named linear layers; the embedding table too, by row. Both mappings go by the layer's name."""
    for node in list(graph.graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        name = "" if weight is None or weight.name is None else weight.name.removesuffix(".weight")
        if name in schemes:
            _quantise_product(graph, node, name, schemes[name], activation_scales)
        elif node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[0].name == EMBEDDING:
            _quantise_table(graph, node)
    if "int4-weight" in schemes.values():
        graph.opset_imports[""] = BLOCK_OPSET


def _quantise_product(
    graph: ir.Model, node: ir.Node, name: str, scheme: IntegerPrecision, activation_scales: Mapping[str, float]
) -> None:
    weight, dtype, (inputs, outputs) = _parameter(node.inputs[1])
    is_blocked = scheme == "int4-weight"
    scale = _initializer(graph, f"{weight.name}{SCALE}", (inputs // INT4_BLOCK, outputs) if is_blocked else (outputs,), dtype)
    weight.type = ir.TensorType(ir.DataType.INT4 if is_blocked else ir.DataType.INT8)
    attributes = {"axis": 0, "block_size": INT4_BLOCK} if is_blocked else {"axis": 1}
    _insert(graph, node, 1, "DequantizeLinear", [weight, scale], attributes, f"{name}.dequantised", dtype)
    if scheme == "int8":
        activation = node.inputs[0]
        constant = _constant(graph, f"{name}.input_scale", activation_scales[name], dtype)
        zero = _constant(graph, "zero_int8", 0, ir.DataType.INT8)
        _insert(graph, node, 0, "QuantizeLinear", [activation, constant, zero], {}, f"{name}.input_int8", ir.DataType.INT8)
        _insert(graph, node, 0, "DequantizeLinear", [node.inputs[0], constant, zero], {}, f"{name}.input", dtype)


def _quantise_table(graph: ir.Model, node: ir.Node) -> None:
    """Rows are gathered from the dequantised table: TensorRT fuses the two and reads the rows it needs."""
    table, dtype, (rows, _) = _parameter(node.inputs[0])
    scale = _initializer(graph, f"{table.name}{SCALE}", (rows,), dtype)
    table.type = ir.TensorType(ir.DataType.INT8)
    _insert(graph, node, 0, "DequantizeLinear", [table, scale], {"axis": 0}, "embed_tokens.dequantised", dtype)


def _parameter(value: ir.Value | None) -> tuple[ir.Value, ir.DataType, tuple[int, ...]]:
    """Return an initializer with its dtype and shape."""
    assert value is not None
    assert value.dtype is not None
    assert value.shape is not None
    return value, value.dtype, tuple(size for size in value.shape if isinstance(size, int))


def _insert(
    graph: ir.Model,
    before: ir.Node,
    index: int,
    operator: str,
    inputs: list[ir.Value | None],
    attributes: dict[str, int],
    name: str,
    dtype: ir.DataType,
) -> None:
    """Put an operator in front of one input of a node."""
    inserted = ir.node(operator, inputs, attributes)
    inserted.outputs[0].name, inserted.outputs[0].dtype = name, dtype
    graph.graph.insert_before(before, inserted)
    before.replace_input_with(index, inserted.outputs[0])


def _initializer(graph: ir.Model, name: str, shape: tuple[int, ...], dtype: ir.DataType) -> ir.Value:
    """Return a new initializer that lies in the weight file."""
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
    graph.graph.initializers[name] = value
    return value


def _constant(graph: ir.Model, name: str, number: float, dtype: ir.DataType) -> ir.Value:
    """Return an initializer that holds a number, made once."""
    if name not in graph.graph.initializers:
        tensor = ir.tensor(np.array(number, dtype.numpy()), name=name)
        value = ir.Value(name=name, shape=ir.Shape(()), type=ir.TensorType(dtype), const_value=tensor)
        graph.graph.initializers[name] = value
    return graph.graph.initializers[name]
