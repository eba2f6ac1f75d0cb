"""Device memory of a target's engines, computed from the model's dimensions. Needs no GPU, no engine and no torch.

Weights, caches and buffers are computed from the shapes. Activations are estimated as the tensors that exist at the same time
in the widest part of a layer, following reports of TensorRT-RTX's builder. The tests compare the estimates with real builds.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import msgspec

from .batch_memory import DTYPE_BYTES, buffer_bytes
from .errors import OptionError, PlumeExportError
from .recipe import AxisRange, Device, Recipe, ShapeRanges
from .spec import COMPUTE_DTYPE, GRAPH_NAMES, INT4_BLOCK, INTEGER_PRECISIONS, GraphName, ModelSpec, Precision, graph_specs
from .weight_names import Layer, layers_of

# Bytes of code and constants per layer of an engine, without weights. Measured with TensorRT-RTX 1.7 for the 2B model.
_CODE_BYTES: dict[GraphName, int] = {"vision_encoder": 540_000, "prefill": 740_000, "latent_step": 1_090_000}
# Memory of a latent step that does not depend on the shapes.
_STEP_BYTES = 10_000_000
# With these precisions, engines can read their weights as inputs. For others, TensorRT-RTX reformats a full copy in every run.
SHAREABLE: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
_CANNOT_SHARE = "Engines in {} cannot share their weights: a full copy would be reformatted in every run."
_SHARING_FIX = "use --weights baked, or --precision int8"
Weights = Literal["baked", "shared"]
# Host memory of the builder. TensorRT-RTX's takes 9.9 GB for the 2B model in fp16 (3.1 GB of weights in prefill), 1.3 to 1.7 GB
# for 2b-slice in quantised precisions, and 0.7 GB with shared weights.
_BUILDER_WEIGHT_COPIES = 3.15
_BUILDER_BYTES = 200_000_000
_BUILDER_SHARED_BYTES = 700_000_000
# CUDA's context and libraries: an estimate, not measured.
CONTEXT_BYTES = 500_000_000


@dataclass(frozen=True)
class Plan:
    """Bytes on the device for the maximum shapes of a recipe. Activations of the three engines share one block."""

    target: str
    precision: Precision
    weights: str
    shapes: ShapeRanges
    engines: dict[GraphName, int]
    shared_weights: int
    activations: dict[GraphName, int]
    prefix_cache: int
    buffers: int
    device_bytes: int | None

    @property
    def largest_activations(self) -> int:
        """Activations of the engine that needs most. The engines run one after another and share one block."""
        return max(self.activations.values())

    @property
    def total(self) -> int:
        """Sum of all parts."""
        engines = sum(self.engines.values()) + self.shared_weights
        return engines + self.largest_activations + self.prefix_cache + self.buffers + CONTEXT_BYTES

    @property
    def fits(self) -> bool | None:
        """Whether the plan fits in the device's memory; None if the recipe names no device."""
        return None if self.device_bytes is None else self.total <= self.device_bytes


def check_shareable(weights: Weights | None, precision: Precision | None) -> None:
    """Raise OptionError for shared weights in a precision that cannot share them. None means that an option was not given."""
    if weights == "shared" and precision is not None and precision not in SHAREABLE:
        raise OptionError(_CANNOT_SHARE.format(precision), fix=_SHARING_FIX)


def plan_memory(
    target: str, recipe: Recipe, model: ModelSpec, precision: Precision, graphs: Collection[GraphName] = GRAPH_NAMES
) -> Plan:
    """Return the memory that the engines of a recipe need. `graphs` are those of the bundle. Source: graph specs (spec.py)."""
    if recipe.backend in ("onnxruntime-cpu", "onnxruntime-cuda"):
        raise OptionError(
            f"The target {target} has no engines to plan.", fix="use --target with a recipe for TensorRT or TensorRT-RTX"
        )
    if recipe.weights == "shared" and precision not in SHAREABLE:
        raise PlumeExportError(_CANNOT_SHARE.format(precision), fix=_SHARING_FIX)
    item = DTYPE_BYTES[COMPUTE_DTYPE[precision]]
    specs = {graph: spec for graph, spec in graph_specs(model, precision).items() if graph in graphs}
    layers = {"vision_encoder": model.vision.depth, "prefill": model.decoder.layers, "latent_step": model.decoder.layers}
    weights = {graph: _weight_bytes(model, precision, (graph,)) for graph in specs}
    is_shared = recipe.weights == "shared"
    # Bytes of the keys and values of one token.
    cached = 2 * item * model.decoder.layers * model.decoder.kv_heads * model.decoder.head_dim
    prefix_cache = cached * recipe.limits.batch.max * recipe.limits.prompt_tokens.max
    return Plan(
        target=target,
        precision=precision,
        weights=recipe.weights,
        shapes=recipe.limits,
        engines={graph: _CODE_BYTES[graph] * layers[graph] + (0 if is_shared else weights[graph]) for graph in specs},
        shared_weights=_weight_bytes(model, precision, specs) if is_shared else 0,
        activations={graph: size for graph, size in _activations(model, recipe.limits, item).items() if graph in specs},
        prefix_cache=prefix_cache,
        buffers=buffer_bytes(specs, model.vision, recipe.limits).total - prefix_cache,
        device_bytes=None if recipe.device is None else int(recipe.device.memory_gb * 1e9),
    )


def builder_peak_bytes(recipe: Recipe, model: ModelSpec, precision: Precision, graphs: Collection[GraphName]) -> int:
    """Return the host memory for building the largest engine. Engines are built one at a time, each in a process of its own.

    Measured with TensorRT-RTX 1.7, whose builder needs about three times the engine's weights (docs/benchmarks).
    """
    if recipe.weights == "shared":
        return _BUILDER_SHARED_BYTES
    largest = max(_weight_bytes(model, precision, (graph,)) for graph in graphs)
    return int(_BUILDER_WEIGHT_COPIES * largest) + _BUILDER_BYTES


def check_builder_fits(
    target: str, recipe: Recipe, model: ModelSpec, precision: Precision, graphs: Collection[GraphName], free_bytes: int
) -> None:
    """Raise PlumeExportError if the host has less free memory than the builder needs."""
    needed = builder_peak_bytes(recipe, model, precision, graphs)
    if needed > free_bytes:
        raise PlumeExportError(
            f"Building the engines of {target} in {precision} needs {needed / 1e6:,.0f} MB of this machine's "
            f"memory; {free_bytes / 1e6:,.0f} MB are free.",
            fix="free memory; or compile on a larger machine and copy the bundle; or pass a --target whose recipe has "
            f'weights = "shared" (that build needs {_BUILDER_SHARED_BYTES / 1e6:,.0f} MB)',
        )


def _activations(model: ModelSpec, shapes: ShapeRanges, item: int) -> dict[GraphName, int]:
    """Return the activations for the maximum shapes. Quantised graphs need no more than 16-bit ones."""
    tokens, frames = shapes.batch.max * shapes.prompt_tokens.max, shapes.frames.max
    patches = shapes.image_tokens.max * model.vision.merged_patches
    return {
        "vision_encoder": frames * patches * _vision_patch_bytes(model, item, frames),
        "prefill": tokens * _prefill_token_bytes(model, item),
        "latent_step": tokens * _step_token_bytes(model, item) + _STEP_BYTES,
    }


def bytes_read_by_pass(model: ModelSpec, precision: Precision, graph: GraphName) -> int:
    """Return the bytes of weights that one run of a graph reads: all except the token table, which is read row by row."""
    return sum(
        _bytes_of(layer, precision) for layer in layers_of(model) if graph in layer.graphs and layer.name != "embed_tokens"
    )


def check_plan_fits(
    target: str,
    recipe: Recipe,
    model: ModelSpec,
    precision: Precision,
    device: Device,
    graphs: Collection[GraphName] = GRAPH_NAMES,
) -> None:
    """Raise PlumeExportError if a recipe does not fit in a device's memory. The fix names the nearest choice that fits."""
    recipe = msgspec.structs.replace(recipe, device=device)
    plan = plan_memory(target, recipe, model, precision, graphs)
    if plan.fits is False:
        raise PlumeExportError(
            f"The engines of {target} in {precision} and their buffers need {plan.total / 1e6:,.0f} MB of device memory; "
            f"{device.name} has {device.memory_gb * 1000:,.0f} MB (see plume-export plan --target {target}).",
            fix="compile with your own recipe; " + nearest_text(nearest_that_fits(target, recipe, model, precision, graphs)),
        )


def nearest_that_fits(
    target: str, recipe: Recipe, model: ModelSpec, precision: Precision, graphs: Collection[GraphName] = GRAPH_NAMES
) -> Plan | None:
    """Return the plan closest to the recipe that fits in the device's memory, or None if none fits.

    Tries, in order: shared weights, smaller batches, shorter prompts with smaller images.
    """
    shapes = recipe.limits
    batch, tokens, image = shapes.batch.max, shapes.prompt_tokens.max, shapes.image_tokens.max
    kinds: tuple[Literal["baked", "shared"], ...] = (recipe.weights, "shared") if precision in SHAREABLE else ("baked",)
    while True:
        for weights in dict.fromkeys(kinds):
            smaller = ShapeRanges(
                _until(shapes.batch, batch), _until(shapes.prompt_tokens, tokens), _until(shapes.image_tokens, image)
            )
            changed = msgspec.structs.replace(recipe, shapes=smaller, weights=weights)
            plan = plan_memory(target, changed, model, precision, graphs)
            if plan.fits is not False:
                return plan
        if batch > 1:
            batch //= 2
        elif tokens > 256:
            tokens, image = tokens // 2, image // 2
        else:
            return None


def nearest_text(nearest: Plan | None) -> str:
    """Return the nearest plan that fits, written as keys of a recipe."""
    if nearest is None:
        return "no smaller plan fits either"
    shapes = nearest.shapes
    return (
        f'nearest that fits: weights = "{nearest.weights}", batch up to {shapes.batch.max}, prompt up to '
        f"{shapes.prompt_tokens.max}, image up to {shapes.image_tokens.max} tokens: {nearest.total / 1e6:,.0f} MB"
    )


def _until(axis: AxisRange, largest: int) -> AxisRange:
    return AxisRange(*(min(size, largest) for size in axis))


def _bytes_of(layer: Layer, precision: Precision) -> int:
    """Return the bytes of a layer's weight and bias. For integer weights, scales are included."""
    values, biases = math.prod(layer.shape), layer.shape[0] if layer.has_bias else 0
    if layer.storage == "float32":
        return 4 * (values + biases)
    item = DTYPE_BYTES[COMPUTE_DTYPE[precision]]
    if layer.storage == "compute" or precision not in INTEGER_PRECISIONS:
        return item * (values + biases)
    if layer.kind == "linear" and precision == "int4-weight":
        return values // 2 + item * values // INT4_BLOCK + item * biases
    return values + item * (layer.shape[0] + biases)  # one scale per output channel, or per row of the table


def _weight_bytes(model: ModelSpec, precision: Precision, graphs: Collection[GraphName]) -> int:
    """Return the bytes of the weights of these graphs. A weight that several graphs use is counted once."""
    return sum(_bytes_of(layer, precision) for layer in layers_of(model) if not set(graphs).isdisjoint(layer.graphs))


def _vision_patch_bytes(model: ModelSpec, item: int, frames: int) -> int:
    """Return the peak bytes per patch, in the MLP: hidden layer before and after GELU, norm output, residuals, rotary tables.

    The residuals are float32. For a single frame, one residual is computed in place.
    """
    vision = model.vision
    residuals = 1 if frames == 1 else 2
    rotary = 4 * vision.head_dim // frames  # cosine and sine are the same for all frames
    return item * (2 * vision.mlp_width + vision.width) + residuals * 4 * vision.width + rotary


def _prefill_token_bytes(model: ModelSpec, item: int) -> int:
    """Return the peak bytes per token, in the MLP: gate, up, their product, norm output, two float32 residuals, rotary."""
    decoder = model.decoder
    return item * (3 * decoder.mlp_width + decoder.hidden) + 2 * 4 * decoder.hidden + 8 * decoder.head_dim


def _step_token_bytes(model: ModelSpec, item: int) -> int:
    """Return the bytes per token of one layer's keys and values, and of the scores of the query rows."""
    decoder = model.decoder
    return 2 * item * decoder.kv_heads * decoder.head_dim + 32
