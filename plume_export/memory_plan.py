"""What a target's engines need on the device, computed from the model's dimensions: no GPU, no engine, no torch.

Weights, caches and buffers follow from the shapes. Activations follow what TensorRT-RTX's builder reports for these graphs:
what lives at the same time in the widest place of a layer. The tests hold them against real builds.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import msgspec

from .batch_memory import DTYPE_BYTES, buffer_bytes
from .errors import OptionError, PlumeExportError
from .layout import expected_tensors
from .recipe import AxisRange, Device, Recipe, ShapeRanges
from .spec import COMPUTE_DTYPE, GRAPH_NAMES, INT4_BLOCK, INTEGER_PRECISIONS, GraphName, ModelSpec, Precision, graph_specs

# Code and constants of an engine beside its weights, for each layer; as built by TensorRT-RTX 1.7 for the 2B model.
_CODE_BYTES: dict[GraphName, int] = {"vision_encoder": 540_000, "prefill": 740_000, "latent_step": 1_090_000}
# What the builder adds to a step's own memory, whatever the shapes.
_STEP_BYTES = 10_000_000
# Checkpoint tensors that integer precisions store as integers (precision/folds.py): linear layers and the embedding table.
_INTEGER_TENSORS = re.compile(
    r"layers\..*_proj\.weight$|blocks\..*(qkv|proj|fc1|fc2)\.weight$|merger\.mlp\..\.weight$|embed_tokens"
)
# With these, engines can take their weights as inputs; of other integers TensorRT-RTX lays out a whole copy anew in every pass.
SHAREABLE: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
_CANNOT_SHARE = "Engines in {} cannot share their weights: a whole copy would be laid out anew in every pass."
_SHARING_FIX = "--weights baked, or --precision int8"
Weights = Literal["baked", "shared"]
# TensorRT-RTX's builder: 9.9 GB for the 2B in fp16 (3.1 GB of weights in prefill), 1.3 to 1.7 GB for 2b-slice in integers;
# 0.7 GB with shared weights.
_BUILDER_WEIGHT_COPIES = 3.15
_BUILDER_BYTES = 200_000_000
_BUILDER_SHARED_BYTES = 700_000_000
# CUDA's context and the libraries: an estimate, not measured.
CONTEXT_BYTES = 500_000_000


@dataclass(frozen=True)
class Plan:
    """Bytes on the device for the largest shapes of a recipe. Activations of the three engines share one block."""

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
        """The engines run one after another and share one block."""
        return max(self.activations.values())

    @property
    def total(self) -> int:
        """Everything at once."""
        engines = sum(self.engines.values()) + self.shared_weights
        return engines + self.largest_activations + self.prefix_cache + self.buffers + CONTEXT_BYTES

    @property
    def fits(self) -> bool | None:
        """None where the recipe names no device."""
        return None if self.device_bytes is None else self.total <= self.device_bytes


def check_shareable(weights: Weights | None, precision: Precision | None) -> None:
    """Raise OptionError for weights that engines of a precision cannot share. None is not given."""
    if weights == "shared" and precision is not None and precision not in SHAREABLE:
        raise OptionError(_CANNOT_SHARE.format(precision), fix=_SHARING_FIX)


def plan_memory(
    target: str, recipe: Recipe, model: ModelSpec, precision: Precision, graphs: Collection[GraphName] = GRAPH_NAMES
) -> Plan:
    """Return what the engines of a recipe need; `graphs` are those of the bundle. Source: the graphs' contracts (spec.py)."""
    if recipe.backend in ("onnxruntime-cpu", "onnxruntime-cuda"):
        raise OptionError(
            f"The target {target} has no engines to plan for.", fix="--target with a recipe of TensorRT or TensorRT-RTX"
        )
    if recipe.weights == "shared" and precision not in SHAREABLE:
        raise PlumeExportError(_CANNOT_SHARE.format(precision), fix=_SHARING_FIX)
    item = DTYPE_BYTES[COMPUTE_DTYPE[precision]]
    specs = {graph: spec for graph, spec in graph_specs(model, precision).items() if graph in graphs}
    layers = {"vision_encoder": model.vision.depth, "prefill": model.decoder.layers, "latent_step": model.decoder.layers}
    weights = {graph: _weight_bytes(model, precision, (graph,)) for graph in specs}
    is_shared = recipe.weights == "shared"
    # Keys and values of one token.
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
    """Return what the process that builds the largest engine needs of the host's memory; engines are built one by one.

    As measured with TensorRT-RTX 1.7, which keeps its weights some three times (docs/benchmarks).
    """
    if recipe.weights == "shared":
        return _BUILDER_SHARED_BYTES
    largest = max(_weight_bytes(model, precision, (graph,)) for graph in graphs)
    return int(_BUILDER_WEIGHT_COPIES * largest) + _BUILDER_BYTES


def check_builder_fits(
    target: str, recipe: Recipe, model: ModelSpec, precision: Precision, graphs: Collection[GraphName], free_bytes: int
) -> None:
    """Raise PlumeExportError if the host's free memory does not hold what the builder needs."""
    needed = builder_peak_bytes(recipe, model, precision, graphs)
    if needed > free_bytes:
        raise PlumeExportError(
            f"Building the engines of {target} in {precision} takes {needed / 1e6:,.0f} MB of this machine's memory; "
            f"{free_bytes / 1e6:,.0f} MB are free.",
            fix="free memory, compile on a larger machine (the engines are portable), or --target with a recipe that has "
            f'weights = "shared", which takes {_BUILDER_SHARED_BYTES / 1e6:,.0f} MB',
        )


def _activations(model: ModelSpec, shapes: ShapeRanges, item: int) -> dict[GraphName, int]:
    """For the largest shapes. Integer graphs need no more than 16-bit ones."""
    tokens, frames = shapes.batch.max * shapes.prompt_tokens.max, shapes.frames.max
    patches = shapes.image_tokens.max * model.vision.merged_patches
    return {
        "vision_encoder": frames * patches * _vision_patch_bytes(model, item, frames),
        "prefill": tokens * _prefill_token_bytes(model, item),
        "latent_step": tokens * _step_token_bytes(model, item) + _STEP_BYTES,
    }


def bytes_read_by_pass(model: ModelSpec, precision: Precision, graph: GraphName) -> int:
    """Return the weights that one pass of a graph reads: all but the embedding table, of which a prompt takes its rows."""
    return sum(
        _bytes_of(name, shape, precision)
        for name, shape in expected_tensors(model).items()
        if _is_in(name, graph) and "embed_tokens" not in name
    )


def check_plan_fits(
    target: str,
    recipe: Recipe,
    model: ModelSpec,
    precision: Precision,
    device: Device,
    graphs: Collection[GraphName] = GRAPH_NAMES,
) -> None:
    """Raise PlumeExportError if a device does not hold what a recipe needs, with the nearest choice that it holds."""
    recipe = msgspec.structs.replace(recipe, device=device)
    plan = plan_memory(target, recipe, model, precision, graphs)
    if plan.fits is False:
        raise PlumeExportError(
            f"The engines of {target} in {precision} take {plan.total / 1e6:,.0f} MB on the device with their buffers; "
            f"{device.name} has {device.memory_gb * 1000:,.0f} MB (see plume-export plan --target {target}).",
            fix="compile with a recipe of your own; "
            + nearest_text(nearest_that_fits(target, recipe, model, precision, graphs)),
        )


def nearest_that_fits(
    target: str, recipe: Recipe, model: ModelSpec, precision: Precision, graphs: Collection[GraphName] = GRAPH_NAMES
) -> Plan | None:
    """Return the plan nearest to the recipe that its device holds, None if there is none.

    Tried in turn: shared weights, smaller batches, shorter prompts with smaller images.
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
    """Say what fits instead, in the words of a recipe."""
    if nearest is None:
        return "nothing smaller fits either"
    shapes = nearest.shapes
    return (
        f'nearest that fits: weights = "{nearest.weights}", batch up to {shapes.batch.max}, prompt up to '
        f"{shapes.prompt_tokens.max}, image up to {shapes.image_tokens.max} tokens: {nearest.total / 1e6:,.0f} MB"
    )


def _until(axis: AxisRange, largest: int) -> AxisRange:
    return AxisRange(*(min(size, largest) for size in axis))


def _is_in(name: str, graph: GraphName) -> bool:
    """Whether a checkpoint tensor is part of a graph."""
    if graph == "vision_encoder":
        return name.startswith("visual.")
    if graph == "prefill":
        return name.startswith("model.")
    return name.startswith("latent_moe_transition.") or (name.startswith("model.") and "embed_tokens" not in name)


def _bytes_of(name: str, shape: tuple[int, ...], precision: Precision) -> int:
    """Norms, the router and the step table are float32 in every precision; integers have scales beside them."""
    values = math.prod(shape)
    if any(part in name for part in ("norm", ".ln.", "ln_q", "router", "step_embed")):
        return 4 * values
    item = DTYPE_BYTES[COMPUTE_DTYPE[precision]]
    if precision not in INTEGER_PRECISIONS or not _INTEGER_TENSORS.search(name):
        return item * values
    if precision == "int4-weight" and "embed_tokens" not in name:
        return values // 2 + item * values // INT4_BLOCK
    return values + item * shape[0]  # a scale for each output channel, or row of the table


def _weight_bytes(model: ModelSpec, precision: Precision, graphs: Collection[GraphName]) -> int:
    """Bytes of the weights that any of the graphs has, each counted once."""
    return sum(
        _bytes_of(name, shape, precision)
        for name, shape in expected_tensors(model).items()
        if any(_is_in(name, graph) for graph in graphs)
    )


def _vision_patch_bytes(model: ModelSpec, item: int, frames: int) -> int:
    """In the MLP: its inner values before and after the activation, the norm's output, float32 residuals, rotary tables.

    One residual of a single frame is computed in place.
    """
    vision = model.vision
    residuals = 1 if frames == 1 else 2
    rotary = 4 * vision.head_dim // frames  # cosine and sine are the same for all frames
    return item * (2 * vision.mlp_width + vision.width) + residuals * 4 * vision.width + rotary


def _prefill_token_bytes(model: ModelSpec, item: int) -> int:
    """In the MLP: gate and up, their product, the norm's output, two float32 residuals; rotary tables."""
    decoder = model.decoder
    return item * (3 * decoder.mlp_width + decoder.hidden) + 2 * 4 * decoder.hidden + 8 * decoder.head_dim


def _step_token_bytes(model: ModelSpec, item: int) -> int:
    """One layer's keys and values, and the scores of the query rows."""
    decoder = model.decoder
    return 2 * item * decoder.kv_heads * decoder.head_dim + 32
