"""Model dimensions, and the tensor names of the graphs. Tensor names are defined only here.

All other parts (PyTorch modules, ONNX files, engines, runtime) use these names. Sources: PLUME (arXiv 2604.02073), section 3,
and the Qwen2-VL configuration.
"""

import math
from typing import Annotated, Literal, get_args

import msgspec

INSTRUCTION = (
    "Represent the above input text, images, videos, or any combination of the three as embeddings. "
    "First output the thinking process in <think> </think> tags and then summarize the entire input in a word or sentence. "
    "Finally, use the <gen_emb> tag to represent the entire input."
)

# In linear layers, "int8" quantises weights and activations, "int8-weight" and "int4-weight" only weights. The rest of such a
# graph is float16.
Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-weight", "int4-weight"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
IntegerPrecision = Literal["int8", "int8-weight", "int4-weight"]
# Number of input channels that share a scale of an int4 weight.
INT4_BLOCK = 128
INTEGER_PRECISIONS: tuple[IntegerPrecision, ...] = get_args(IntegerPrecision)
RouterContext = Literal["disc", "none"]


# Limit for sizes read from a file: far above any model, and small enough to compute with.
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
_Layers = Annotated[int, msgspec.Meta(ge=1, le=1 << 12)]
_PatchSide = Annotated[int, msgspec.Meta(ge=1, le=64)]
_Pixels = Annotated[int, msgspec.Meta(ge=1, le=1 << 28)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class VisionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dimensions of Qwen2-VL's vision encoder."""

    depth: _Layers
    width: Size
    heads: Size
    mlp_width: Size
    patch_size: _PatchSide
    temporal_patch_size: _PatchSide
    merge_size: _PatchSide
    channels: _PatchSide

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def patch_values(self) -> int:
        """Number of values in one flattened patch: channels x temporal_patch_size x patch_size x patch_size."""
        return self.channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merged_patches(self) -> int:
        """Number of patches that become one visual token."""
        return self.merge_size**2


class DecoderSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dimensions of the Qwen2 decoder with multimodal rotary positions."""

    layers: _Layers
    hidden: Size
    query_heads: Size
    kv_heads: Size
    head_dim: Size
    mlp_width: Size
    vocab: Size
    norm_epsilon: _Positive
    rope_theta: _Positive
    mrope_sections: tuple[Size, Size, Size]
    max_positions: Size


class TransitionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dimensions of PLUME's latent transition (the mixture of experts between two latent steps)."""

    experts: _Layers
    expert_width: Size
    step_table_rows: Size
    top_k: Size


class RolloutSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the latent rollout. The defaults are those of the original evaluation.

    `prefix` and `suffix` are fixed texts, each tokenised as a whole. Positions of the suffix continue at the KV length, as in
    the original evaluation. With `router_context = "none"` the router sees a zero anchor.
    """

    latent_steps: Size = 8
    prefix: str = "<think><bot>"
    suffix: str = "<eot></think>\n<gen_emb>"
    router_context: RouterContext = "disc"


class PreprocessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options for turning images and videos into patches. The pixel limits are the original evaluation's, not the
    checkpoint's.
    """

    min_pixels: _Pixels = 784
    max_pixels: _Pixels = 2359296
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[_Positive, _Positive, _Positive] = (0.26862954, 0.26130258, 0.27577711)


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All properties of a model that the runtime needs."""

    vision: VisionSpec
    decoder: DecoderSpec
    transition: TransitionSpec
    rollout: RolloutSpec
    preprocess: PreprocessSpec


def model_problem(model: ModelSpec) -> str | None:
    """Return the first inconsistency in a model's dimensions, which may come from a file. None: they are consistent."""
    vision, decoder, transition, preprocess = model.vision, model.decoder, model.transition, model.preprocess
    numbers = (decoder.norm_epsilon, decoder.rope_theta, *preprocess.image_mean, *preprocess.image_std)
    checks = {
        f"the vision width {vision.width} is not a multiple of {4 * vision.heads}": vision.width % (4 * vision.heads),
        f"{vision.channels} channels, but images have 3": vision.channels != 3,
        f"the number of query heads, {decoder.query_heads}, is not a multiple of {decoder.kv_heads}": decoder.query_heads
        % decoder.kv_heads,
        f"the head dimension {decoder.head_dim} is odd": decoder.head_dim % 2,
        f"mrope_sections {list(decoder.mrope_sections)} do not sum to {decoder.head_dim // 2}": (
            sum(decoder.mrope_sections) != decoder.head_dim // 2
        ),
        f"top_k {transition.top_k} of {transition.experts} experts": transition.top_k > transition.experts,
        f"{model.rollout.latent_steps} latent steps with a step table of {transition.step_table_rows} rows": (
            model.rollout.latent_steps > transition.step_table_rows
        ),
        f"min_pixels {preprocess.min_pixels} above max_pixels {preprocess.max_pixels}": (
            preprocess.min_pixels > preprocess.max_pixels
        ),
        "a number that is not finite": not all(map(math.isfinite, numbers)),
    }
    return next((problem for problem, is_wrong in checks.items() if is_wrong), None)


# The original model (Qwen2-VL-2B's dimensions).
PLUME_2B = ModelSpec(
    vision=VisionSpec(32, 1280, 16, 5120, 14, 2, 2, 3),
    decoder=DecoderSpec(28, 1536, 12, 2, 128, 8960, 151936, 1e-6, 1e6, (16, 24, 24), 32768),
    transition=TransitionSpec(experts=4, expert_width=3072, step_table_rows=32, top_k=2),
    rollout=RolloutSpec(),
    preprocess=PreprocessSpec(),
)

DType = Literal["float32", "float16", "bfloat16", "int8", "int64"]
# "compute" is the precision of the graph: float32, float16 or bfloat16.
COMPUTE_DTYPE: dict[str, DType] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    **dict.fromkeys(INTEGER_PRECISIONS, "float16"),
}


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a graph. An axis is a size, or the name of a dynamic axis."""

    name: str
    dtype: DType
    axes: tuple[int | str, ...]


class GraphSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


GraphName = Literal["vision_encoder", "prefill", "latent_step"]
GRAPH_NAMES: tuple[GraphName, ...] = ("vision_encoder", "prefill", "latent_step")


def layer_name(name: str, layer: int) -> str:
    """Return the name of one layer's tensor, for tensors that every layer has, such as `prefix_keys_3`."""
    return f"{name}_{layer}"


def graph_specs(model: ModelSpec, precision: Precision) -> dict[GraphName, GraphSpec]:
    """Return the inputs and outputs of the three graphs.

    Tensors that the host writes or reads (patches, states, router probabilities) are float32. Tensors that stay on the device
    (visual embeddings, keys, values, suffix) have the precision of the graph. ONNX requires a unique name per value, so the
    state returned by latent_step is `next_state`. The prefix cache is one tensor per layer: from one large tensor, TensorRT
    would copy all layers in every step.
    """
    compute = COMPUTE_DTYPE[precision]
    decoder = model.decoder
    hidden = decoder.hidden
    state = TensorSpec("state", "float32", ("batch", hidden))
    anchor = TensorSpec("anchor", "float32", ("batch", hidden))
    token_count = TensorSpec("token_count", "int64", ("batch",))
    visual_embeddings = TensorSpec("visual_embeddings", compute, ("visual_tokens", hidden))
    prefix_axes = ("batch", decoder.kv_heads, "tokens", decoder.head_dim)
    prefix_cache = tuple(
        TensorSpec(layer_name(name, layer), compute, prefix_axes)
        for name in ("prefix_keys", "prefix_values")
        for layer in range(decoder.layers)
    )
    step_axes = (decoder.layers, "batch", decoder.kv_heads, decoder.head_dim)
    slots = model.rollout.latent_steps
    return {
        "vision_encoder": GraphSpec(
            inputs=(
                TensorSpec("patches", "float32", ("frames", "patches", model.vision.patch_values)),
                TensorSpec("patch_positions", "int64", ("patches", 2)),
            ),
            outputs=(visual_embeddings,),
        ),
        "prefill": GraphSpec(
            inputs=(
                TensorSpec("input_ids", "int64", ("batch", "tokens")),
                visual_embeddings,
                TensorSpec("visual_index", "int64", ("batch", "tokens")),
                TensorSpec("position_ids", "int64", (3, "batch", "tokens")),
                token_count,
                TensorSpec("anchor_index", "int64", ("batch",)),
            ),
            outputs=(state, anchor, *prefix_cache),
        ),
        "latent_step": GraphSpec(
            inputs=(
                state,
                anchor,
                TensorSpec("step", "int64", ()),
                TensorSpec("suffix_embeddings", compute, ("suffix_tokens", hidden)),
                *prefix_cache,
                token_count,
                TensorSpec("rollout_keys", compute, (slots, *step_axes)),
                TensorSpec("rollout_values", compute, (slots, *step_axes)),
            ),
            outputs=(
                TensorSpec("next_state", "float32", ("batch", hidden)),
                TensorSpec("step_keys", compute, step_axes),
                TensorSpec("step_values", compute, step_axes),
                TensorSpec("router_probabilities", "float32", ("batch", model.transition.experts)),
            ),
        ),
    }
