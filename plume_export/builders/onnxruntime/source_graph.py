"""Read the graphs of a source bundle. They may come from anywhere, so a graph that no export writes becomes a BundleError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from ...errors import BundleError, PlumeExportError
from ...spec import DType, GraphSpec, TensorSpec

_FIX = "export the bundle again with this version of plume-export"
_DTYPES: dict[DType, ir.DataType] = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "int8": ir.DataType.INT8,
    "int64": ir.DataType.INT64,
}


def read_source_graph(file: Path, spec: GraphSpec, source: Path) -> ir.Model:
    """Read a graph with the inputs and outputs of `spec`. `source` is the file that `file` was copied from.

    Raises BundleError if the file is not a graph or has other inputs and outputs.
    """
    with expecting_exported(source):
        graph = ir.load(file)
        for kind, expected, values in (
            ("input", spec.inputs, graph.graph.inputs),
            ("output", spec.outputs, graph.graph.outputs),
        ):
            found = {str(value.name): value for value in values}
            for tensor in expected:
                _check_value(source, kind, tensor, found.pop(tensor.name, None))
            for name in found:
                raise BundleError(f"{source} has an unexpected {kind}: {name!r} is not in the manifest.", fix=_FIX)
        _check_connected(source, graph)
    return graph


@contextmanager
def expecting_exported(file: Path) -> Iterator[None]:
    """Convert any error of a pass to a BundleError that names the graph, because the graph is not what an export writes.

    OS errors and errors that are meant for a user are not converted.
    """
    try:
        yield
    except Exception as raised:  # from asserts, look-ups, and libraries that parse and rewrite
        error = _cause(raised)
        if isinstance(error, PlumeExportError | OSError | MemoryError):
            raise error from error.__cause__
        reason = " ".join(str(error).split()).rstrip(".")
        raise BundleError(
            f"{file} is not the graph that plume-export export writes for this model: {reason or type(error).__name__}.",
            fix=_FIX,
        ) from error


def _cause(error: BaseException) -> BaseException:
    """Return the error that stopped a pass, without those that a sequence of passes wraps around it."""
    while isinstance(error, ir.passes.PassError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _check_value(file: Path, kind: str, expected: TensorSpec, found: ir.Value | None) -> None:
    received = "missing"
    if found is not None:
        shape = None if found.shape is None else list(found.shape.dims)
        if found.dtype == _DTYPES[expected.dtype] and shape is not None and _fits(shape, expected):
            return
        sizes = "of unknown shape" if shape is None else "[" + ", ".join(map(_axis_text, shape)) + "]"
        received = f"{found.dtype.name if found.dtype is not None else 'untyped'} {sizes}"
    axes = ", ".join(map(str, expected.axes))
    raise BundleError(
        f"{file}: the {kind} {expected.name} is {received}; expected {expected.dtype} [{axes}] from the manifest.", fix=_FIX
    )


def _fits(shape: list[int | ir.SymbolicDim], expected: TensorSpec) -> bool:
    """Return True if all axes with fixed sizes have the expected sizes."""
    if len(shape) != len(expected.axes):
        return False
    return all(
        size == axis for size, axis in zip(shape, expected.axes, strict=True) if isinstance(size, int) and isinstance(axis, int)
    )


def _check_connected(file: Path, graph: ir.Model) -> None:
    """Raise BundleError if a value is used but never computed. ONNX Runtime would report some of these much later."""
    used = [
        (node.name or node.op_type, value) for node in graph.graph.all_nodes() for value in node.inputs if value is not None
    ]
    used += [("the graph's output", value) for value in graph.graph.outputs]
    for user, value in used:
        if value.producer() is None and not value.is_graph_input() and not value.is_initializer():
            raise BundleError(
                f"{file}: {user} reads {value.name!r}, which is not an input, not a weight and not computed by any node.",
                fix=_FIX,
            )


def _axis_text(axis: int | ir.SymbolicDim) -> str:
    return str(axis) if isinstance(axis, int) else str(axis.value or "?")
