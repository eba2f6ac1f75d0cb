"""Convert the int8 weights of matmuls to uint8 with zero point 128, for CPUs whose sums of uint8 by int8 products saturate.

ONNX Runtime would make the same change in memory, once per session, and could not memory-map the result.
"""

import onnx_ir as ir

from .compiled_weights import CompiledWeights

_MATMUL = "MatMulIntegerToFloat"


class UnsignedWeights(ir.passes.InPlacePass):
    """Declare the int8 weights of a graph's matmuls as uint8. Their bytes change in `CompiledWeights.convert_to_uint8`.

    Requires: only matmuls read these weights, in all graphs of the bundle. Ensures: no int8 weight, the same sums. Source:
    operator MatMulIntegerToFloat of domain com.microsoft.
    """

    def __init__(self, weights: CompiledWeights) -> None:
        self._weights = weights

    def requires(self, model: ir.Model) -> None:
        for weight in _matmul_weights(model):
            readers = {use.node.op_type for use in weight.uses()} - {_MATMUL}
            if readers:
                raise ir.passes.PreconditionError(f"{weight.name} is read by {', '.join(sorted(readers))}, not only by matmuls")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        weights = _matmul_weights(model)
        for weight in weights:
            assert weight.const_value is not None
            weight.const_value = self._weights.uint8_from_int8(weight.const_value)
            weight.dtype = ir.DataType.UINT8
            for matmul in weight.consumers():
                zero_point = matmul.inputs[4]
                matmul.resize_inputs(6)
                matmul.replace_input_with(5, zero_point)  # activations have zero point 128 too
        return ir.passes.PassResult(model, modified=bool(weights))

    def ensures(self, model: ir.Model) -> None:
        assert not _matmul_weights(model)


def _matmul_weights(model: ir.Model) -> list[ir.Value]:
    """Return the int8 weights of a graph's integer matmuls, each once, in order."""
    weights = {node.inputs[1]: None for node in model.graph if node.op_type == _MATMUL}
    return [weight for weight in weights if weight is not None and _is_int8(weight)]


def _is_int8(weight: ir.Value) -> bool:
    return weight.const_value is not None and weight.const_value.dtype == ir.DataType.INT8
