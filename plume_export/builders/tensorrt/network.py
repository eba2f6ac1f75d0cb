"""An ONNX graph as a TensorRT network: parsed strongly typed, its dtypes checked, its shape profile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import PlumeExportError
from ...recipe import ShapeRanges
from ...spec import COMPUTE_DTYPE, GraphSpec, ModelSpec, Precision
from .flavour import Flavour

# Least, best and most shape of an input.
ShapeProfile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
# Least, best and most of every named axis.
AxisRanges = Mapping[str, tuple[int, int, int]]
# The one matrix product that is float32 in every precision.
_FLOAT32_WEIGHT = "transition.router.weight"
_TRT_DTYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}


def network_from_onnx(flavour: Flavour, builder: Any, logger: Any, file: Path) -> tuple[Any, Any]:
    """Parse a graph with its external weights. Return the network and its parser, which owns the weights.

    Raises PlumeExportError with what the parser says.
    """
    trt = flavour.trt
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):  # TensorRT 10; from 11 on there is nothing else
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise PlumeExportError(f"{flavour.name} {flavour.version} can not parse {file.name}: {reasons}.", fix="export again")
    return network, parser


def check_layer_dtypes(flavour: Flavour, network: Any, precision: Precision) -> int:
    """Check that every matrix product runs in the precision and no layer in another; return how many products there are.

    Raises PlumeExportError for the first layer with a wrong dtype, before anything is built.
    """
    trt = flavour.trt
    compute = getattr(trt.DataType, _TRT_DTYPES[COMPUTE_DTYPE[precision]])
    floats = {getattr(trt.DataType, name) for name in _TRT_DTYPES.values()}
    products = 0
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        wrong = [tensor for tensor in outputs if tensor.dtype in floats - {compute, trt.DataType.FLOAT}]
        if layer.type == trt.LayerType.MATRIX_MULTIPLY:
            products += 1
            if not layer.get_input(1).name.startswith(_FLOAT32_WEIGHT):
                wrong += [tensor for tensor in outputs if tensor.dtype != compute]
        if wrong:
            raise PlumeExportError(
                f"Layer {layer.name} computes {wrong[0].name} in {wrong[0].dtype}; the bundle's precision is {precision}.",
                fix="export the bundle again; if it persists, report it with `plume-export inspect BUNDLE --json`",
            )
    return products


def axis_ranges(shapes: ShapeRanges, model: ModelSpec, suffix_tokens: int) -> AxisRanges:
    """Return the range of every dynamic axis of the graphs.

    A batch's visual tokens are at most all tokens of its prompts; frames are encoded as many at a time as prompts.
    """
    least, best, most = shapes.image_tokens
    per_token = model.vision.merged_patches
    return {
        "batch": shapes.batch,
        "frames": shapes.batch,
        "patches": (least * per_token, best * per_token, most * per_token),
        "tokens": shapes.prompt_tokens,
        "visual_tokens": (least, best, shapes.batch[2] * shapes.prompt_tokens[2]),
        "suffix_tokens": (0, 0, suffix_tokens),
    }


def add_profile(builder: Any, config: Any, spec: GraphSpec, ranges: AxisRanges) -> dict[str, ShapeProfile]:
    """Add the one profile that spans all shapes; return least, best and most shape of every dynamic input."""
    profile = builder.create_optimization_profile()
    shapes: dict[str, ShapeProfile] = {}
    for tensor in spec.inputs:
        if any(isinstance(axis, str) for axis in tensor.axes):
            least, best, most = (
                tuple(axis if isinstance(axis, int) else ranges[axis][which] for axis in tensor.axes) for which in range(3)
            )
            shapes[tensor.name] = (least, best, most)
            profile.set_shape(tensor.name, *shapes[tensor.name])
    config.add_optimization_profile(profile)
    return shapes
