"""Insert QuantizeLinear and DequantizeLinear before the linear layers of a graph, in the form that TensorRT fuses.

Source: ONNX operators QuantizeLinear and DequantizeLinear.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..spec import INT4_BLOCK, IntegerPrecision

SCALE = "_scale"
EMBEDDING = "embed_tokens.weight"
# The first opset whose DequantizeLinear takes blocks and int4.
BLOCK_OPSET = 21
_DTYPES: dict[IntegerPrecision, ir.DataType] = {
    "int8": ir.DataType.INT8,
    "int8-weight": ir.DataType.INT8,
    "int4-weight": ir.DataType.INT4,
}


class QuantiseGraph(ir.passes.InPlacePass):
    """Quantise the named linear layers, and the embedding table by row. Both mappings are by layer name.

    Requires: the weight of each layer, [in, out], is an initializer that one MatMul reads as its second input. Ensures: it is
    an int8 or int4 initializer of the same name, without data, with its scales in `NAME_scale`. Activations of "int8" layers
    are quantised with one scale. All zero points are 0.
    """

    def __init__(self, schemes: Mapping[str, IntegerPrecision], activation_scales: Mapping[str, float]) -> None:
        self._schemes, self._activation_scales = schemes, activation_scales

    def requires(self, model: ir.Model) -> None:
        for layer in self._schemes:
            weight = model.graph.initializers.get(f"{layer}.weight")
            uses = [] if weight is None else [(use.node.op_type, use.idx) for use in weight.uses()]
            if uses != [("MatMul", 1)]:
                raise ir.passes.PreconditionError(f"{layer}.weight is not the second input of one MatMul: {uses}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        for node in list(graph):
            layer = _layer_of(node)
            if layer in self._schemes:
                _quantise_weight(graph, node, layer, self._schemes[layer])
                if self._schemes[layer] == "int8":
                    _quantise_activation(graph, node, layer, self._activation_scales[layer])
            elif node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[0].name == EMBEDDING:
                _quantise_table(graph, node)
        if "int4-weight" in self._schemes.values():
            model.opset_imports[""] = BLOCK_OPSET
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        for layer, scheme in self._schemes.items():
            weight = model.graph.initializers[f"{layer}.weight"]
            if weight.dtype != _DTYPES[scheme]:
                raise ir.passes.PostconditionError(f"{weight.name} is {weight.dtype}, expected {_DTYPES[scheme]}")


def _layer_of(matmul: ir.Node) -> str:
    """Return the name of the linear layer whose MatMul a node is; an empty string for another node."""
    weight = matmul.inputs[1] if matmul.op_type == "MatMul" else None
    return "" if weight is None or weight.name is None else weight.name.removesuffix(".weight")


def _quantise_weight(graph: ir.Graph, matmul: ir.Node, layer: str, scheme: IntegerPrecision) -> None:
    """Dequantise the weight before a MatMul, with one scale per output channel, or per block of input channels in int4."""
    weight, dtype, (inputs, outputs) = _parameter(matmul.inputs[1])
    is_blocked = scheme == "int4-weight"
    scale = _initializer(graph, f"{weight.name}{SCALE}", (inputs // INT4_BLOCK, outputs) if is_blocked else (outputs,), dtype)
    weight.type = ir.TensorType(_DTYPES[scheme])
    attributes = {"axis": 0, "block_size": INT4_BLOCK} if is_blocked else {"axis": 1}
    _insert(graph, matmul, 1, "DequantizeLinear", [weight, scale], attributes, f"{layer}.dequantised", dtype)


def _quantise_activation(graph: ir.Graph, matmul: ir.Node, layer: str, number: float) -> None:
    """Quantise and dequantise the activation before a MatMul, with one scale."""
    dequantised = matmul.inputs[1]
    assert dequantised is not None
    assert dequantised.dtype is not None
    dtype = dequantised.dtype
    scale = _constant(graph, f"{layer}.input_scale", number, dtype)
    zero_point = _constant(graph, "zero_int8", 0, ir.DataType.INT8)
    for operator, name, result in (
        ("QuantizeLinear", f"{layer}.input_int8", ir.DataType.INT8),
        ("DequantizeLinear", f"{layer}.input", dtype),
    ):
        _insert(graph, matmul, 0, operator, [matmul.inputs[0], scale, zero_point], {}, name, result)


def _quantise_table(graph: ir.Graph, gather: ir.Node) -> None:
    """Dequantise the embedding table before its rows are gathered. TensorRT fuses the two and reads only those rows."""
    table, dtype, (rows, _) = _parameter(gather.inputs[0])
    scale = _initializer(graph, f"{table.name}{SCALE}", (rows,), dtype)
    table.type = ir.TensorType(ir.DataType.INT8)
    _insert(graph, gather, 0, "DequantizeLinear", [table, scale], {"axis": 0}, "embed_tokens.dequantised", dtype)


def _parameter(value: ir.Value | None) -> tuple[ir.Value, ir.DataType, tuple[int, ...]]:
    """Return an initializer with its dtype and shape."""
    assert value is not None
    assert value.dtype is not None
    assert value.shape is not None
    return value, value.dtype, tuple(size for size in value.shape if isinstance(size, int))


def _insert(
    graph: ir.Graph,
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
    graph.insert_before(before, inserted)
    before.replace_input_with(index, inserted.outputs[0])


def _initializer(graph: ir.Graph, name: str, shape: tuple[int, ...], dtype: ir.DataType) -> ir.Value:
    """Return a new initializer that lies in the weight file."""
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
    graph.initializers[name] = value
    return value


def _constant(graph: ir.Graph, name: str, number: float, dtype: ir.DataType) -> ir.Value:
    """Return an initializer that holds a number, made once."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.array(number, dtype.numpy()), name=name)
        value = ir.Value(name=name, shape=ir.Shape(()), type=ir.TensorType(dtype), const_value=tensor)
        graph.initializers[name] = value
    return graph.initializers[name]
