"""Trace a graph module to ONNX without its weights.

Modules are built and traced as fake tensors (shapes and dtypes, no data), so tracing the full 2B model stays far below 1 GB.
Every parameter becomes an initializer that keeps its dotted name; `weights.py` points it into the bundle's weight file.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..spec import GraphSpec, TensorSpec

# The newest opset whose operators are all supported by TensorRT 10.3's parser (JetPack 6).
OPSET = 20
IR_VERSION = 9

_ONNX_DTYPES = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16", "int64": "INT64"}

# Sizes of the dynamic axes in the traced example. All differ, so that the tracer does not treat two axes as one.
_EXAMPLE_SIZES = {"batch": 2, "tokens": 24, "frames": 3, "patches": 16, "visual_tokens": 12, "suffix_tokens": 5}


def trace_graph(build_module: Callable[[], nn.Module], spec: GraphSpec, *, patches_multiple: int = 1) -> ir.Model:
    """Return the ONNX graph of a module. Its initializers have no data yet.

    `build_module` is called in fake tensor mode. `patches_multiple` is the number of patches per visual token; the axis
    `patches` is always a multiple of it.
    """
    # The tracer warns that torchvision is missing, and the optimiser about every parameter without data.
    with _quiet("torch.onnx", "onnx_ir"):
        model, parameters = _traced(build_module, spec, patches_multiple)
        _drop_parameter_data(model, parameters)
        onnxscript.optimizer.optimize(model)
    _name_axes(model, spec)
    _drop_stack_traces(model)
    model.ir_version = IR_VERSION
    return model


def _traced(build_module: Callable[[], nn.Module], spec: GraphSpec, patches_multiple: int) -> tuple[ir.Model, set[str]]:
    """Return the graph before optimisation, and the names of its parameters."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = build_module().eval()
        example = _grouped(spec, [_example_input(tensor) for tensor in spec.inputs])
        exported = torch.export.export(module, example, dynamic_shapes=_dynamic_shapes(spec, patches_multiple))
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
        )
    assert program is not None
    return program.model, {name for name, _ in module.named_parameters()}


def _drop_parameter_data(model: ir.Model, parameters: set[str]) -> None:
    """Remove the fake data of parameters, so that no pass folds it. The data of small constants is real and stays."""
    for name, value in model.graph.initializers.items():
        if name in parameters:
            value.const_value = None


def _example_input(tensor: TensorSpec) -> Tensor:
    shape = [axis if isinstance(axis, int) else _EXAMPLE_SIZES[axis] for axis in tensor.axes]
    return torch.zeros(shape, dtype=getattr(torch, tensor.dtype))


def _dynamic_shapes(spec: GraphSpec, patches_multiple: int) -> tuple[Any, ...]:
    names = {axis for tensor in spec.inputs for axis in tensor.axes if isinstance(axis, str)}
    dimensions: dict[str, object] = {name: torch.export.Dim(name) for name in names}
    if "suffix_tokens" in names:
        dimensions["suffix_tokens"] = torch.export.Dim.DYNAMIC  # 0 or more
    if "patches" in names:
        dimensions["patches"] = patches_multiple * torch.export.Dim("tokens_per_frame")
    axes = [
        {index: dimensions[axis] for index, axis in enumerate(tensor.axes) if isinstance(axis, str)} for tensor in spec.inputs
    ]
    return _grouped(spec, axes)


def _grouped(spec: GraphSpec, values: list[Any]) -> tuple[Any, ...]:
    """Arrange one value per input as the module's arguments. Inputs that exist once per layer form one list."""
    arguments: dict[str, Any] = {}
    for tensor, value in zip(spec.inputs, values, strict=True):
        stem, _, layer = tensor.name.rpartition("_")
        if layer.isdigit():
            arguments.setdefault(stem, []).append(value)
        else:
            arguments[tensor.name] = value
    return tuple(arguments.values())


def _name_axes(model: ir.Model, spec: GraphSpec) -> None:
    """Give inputs and outputs the axis names of the spec. Remove all other shapes, whose axes the tracer has named."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    pairs = [*zip(model.graph.inputs, spec.inputs, strict=True), *zip(model.graph.outputs, spec.outputs, strict=True)]
    for value, tensor in pairs:
        assert value.name == tensor.name, (value.name, tensor.name)
        assert value.dtype == ir.DataType[_ONNX_DTYPES[tensor.dtype]], (tensor, value.dtype)
        value.shape = ir.Shape(tensor.axes)


def _drop_stack_traces(model: ir.Model) -> None:
    """They contain the paths of this machine, so that a bundle would depend on where it was made."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)


@contextmanager
def _quiet(*logger_names: str) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in logger_names}
    for name in logger_names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
