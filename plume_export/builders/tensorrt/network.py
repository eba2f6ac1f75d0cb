"""Parse an ONNX graph as a strongly typed TensorRT network, check its dtypes, and add its shape profile."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...errors import PlumeExportError
from ...machine.tensorrt_variant import Variant
from ...recipe import AxisRange, ShapeRanges
from ...spec import COMPUTE_DTYPE, GraphSpec, ModelSpec, Precision, TensorSpec

# Min, opt and max shape of an input.
ShapeProfile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
# Min, opt and max of every named axis.
AxisRanges = Mapping[str, AxisRange]
# The one matmul that is float32 in every precision.
_FLOAT32_WEIGHT = "transition.router.weight"
_TRT_FLOATS = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}
_TRT_DTYPES = {**_TRT_FLOATS, "int8": "INT8", "int64": "INT64"}


def network_from_onnx(variant: Variant, builder: Any, logger: Any, file: Path) -> tuple[Any, Any]:
    """Parse a graph with its external weights. Return the network and its parser, which owns the weights.

    Raises PlumeExportError with the parser's errors.
    """
    trt = variant.trt
    flags = 0
    if hasattr(
        trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"
    ):  # TensorRT 10; from version 11 on, every network is strongly typed
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise PlumeExportError(
            f"{variant.name} {variant.version} cannot parse {file.name}: {reasons}.", fix="export the bundle again"
        )
    return network, parser


def check_inputs_and_outputs(variant: Variant, network: Any, spec: GraphSpec) -> None:
    """Check that a network has exactly the expected inputs and outputs, with their dtypes and shapes.

    A named axis must be dynamic (-1), and a number must match. A parser may leave the axes of an output open. Raises
    PlumeExportError for the first tensor that differs, before anything is built.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    for kind, expected, found in (("input", spec.inputs, inputs), ("output", spec.outputs, outputs)):
        by_name = {tensor.name: tensor for tensor in found}
        for tensor in expected:
            _check_tensor(variant, kind, tensor, by_name.pop(tensor.name, None))
        for name in by_name:
            raise PlumeExportError(f"The network has an unexpected {kind}: {name}.", fix="export the bundle again")


def _check_tensor(variant: Variant, kind: str, expected: TensorSpec, found: Any | None) -> None:
    shape = [axis if isinstance(axis, int) else -1 for axis in expected.axes]
    received = "missing"
    if found is not None:
        names = {getattr(variant.trt.DataType, name): dtype for dtype, name in _TRT_DTYPES.items()}
        dtype, sizes = names.get(found.dtype, str(found.dtype)), list(found.shape)
        received = f"{dtype} {sizes}"
        if dtype == expected.dtype and (sizes == shape or (kind == "output" and _is_left_open(sizes, shape))):
            return
    raise PlumeExportError(
        f"The network's {kind} {expected.name} is {received}; expected {expected.dtype} {shape}.",
        fix="export the bundle again with this version of plume-export",
    )


def _is_left_open(sizes: list[int], shape: list[int]) -> bool:
    return len(sizes) == len(shape) and all(size in (axis, -1) for size, axis in zip(sizes, shape, strict=True))


def check_layer_dtypes(variant: Variant, network: Any, precision: Precision, float32_layers: Collection[str] = ()) -> int:
    """Check that every matmul runs in the precision and no layer in another. Return the number of matmuls.

    The matmuls of the router and of `float32_layers` are float32.

    Raises PlumeExportError for the first layer with a wrong dtype, before anything is built.
    """
    trt = variant.trt
    compute = getattr(trt.DataType, _TRT_FLOATS[COMPUTE_DTYPE[precision]])
    floats = {getattr(trt.DataType, name) for name in _TRT_FLOATS.values()}
    float32_stems = [f"{name}{end}" for name in float32_layers for end in (".weight", ".fc")]  # a stack has fc1_weight
    products = 0
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        wrong = [tensor for tensor in outputs if tensor.dtype in floats - {compute, trt.DataType.FLOAT}]
        if layer.type == trt.LayerType.MATRIX_MULTIPLY:
            products += 1
            if not layer.get_input(1).name.startswith((_FLOAT32_WEIGHT, *float32_stems)):
                wrong += [tensor for tensor in outputs if tensor.dtype != compute]
        if wrong:
            raise PlumeExportError(
                f"Layer {layer.name} computes {wrong[0].name} in {wrong[0].dtype}, but the bundle's precision is {precision}.",
                fix="export the bundle again; if the error persists, file an issue with the output of `plume-export "
                "inspect BUNDLE --json`",
            )
    return products


def axis_ranges(shapes: ShapeRanges, model: ModelSpec, suffix_tokens: int) -> AxisRanges:
    """Return the range of every dynamic axis of the graphs.

    A batch has at most as many visual tokens as its prompts have tokens. Frames are encoded a few at a time.
    """
    images, per_token = shapes.image_tokens, model.vision.merged_patches
    return {
        "batch": shapes.batch,
        "frames": shapes.frames,
        "patches": AxisRange(*(tokens * per_token for tokens in images)),
        "tokens": shapes.prompt_tokens,
        "visual_tokens": AxisRange(images.min, images.opt, shapes.batch.max * shapes.prompt_tokens.max),
        "suffix_tokens": AxisRange(0, 0, suffix_tokens),
    }


def add_profile(builder: Any, config: Any, spec: GraphSpec, ranges: AxisRanges) -> dict[str, ShapeProfile]:
    """Add a single profile that covers all shapes. Return the min, opt and max shape of every dynamic input."""
    profile = builder.create_optimization_profile()
    shapes: dict[str, ShapeProfile] = {}
    for tensor in spec.inputs:
        if any(isinstance(axis, str) for axis in tensor.axes):
            smallest, tuned, largest = (
                tuple(axis if isinstance(axis, int) else ranges[axis][which] for axis in tensor.axes) for which in range(3)
            )
            shapes[tensor.name] = (smallest, tuned, largest)
            profile.set_shape(tensor.name, *shapes[tensor.name])
    config.add_optimization_profile(profile)
    return shapes
