"""The names of weights: keys in a checkpoint's files, canonical names, and the layers of the graphs.

Several layers of a checkpoint may be packed into one layer of the graphs: qkv_proj is q_proj, k_proj and v_proj side by side.
"""

import re
from typing import Literal, NamedTuple

from .spec import GraphName, ModelSpec

TOKEN_TABLE = "model.embed_tokens.weight"
TRANSITION = "latent_moe_transition."

KeyLayout = Literal["flat", "nested"]
# A table has one row per id. Packed layers are joined along their outputs, except for experts, which are stacked.
Kind = Literal["norm", "table", "linear", "expert"]
# "compute" is the dtype of the graph's precision; "integer" is the same, but int8 or int4 in quantised precisions.
Storage = Literal["float32", "compute", "integer"]

_GRAPHS: dict[str, tuple[GraphName, ...]] = {
    "visual": ("vision_encoder",),
    "embed_tokens": ("prefill",),
    "decoder": ("prefill", "latent_step"),
    "transition": ("latent_step",),
}


class Layer(NamedTuple):
    """One layer of a checkpoint. `stored` is its canonical name, `name` the name of the graphs' layer that it is part of.

    `shape` is the shape of the stored weight. A linear layer is stored as [outputs, inputs]; the graphs have it transposed.
    """

    stored: str
    name: str
    shape: tuple[int, ...]
    kind: Kind
    storage: Storage
    has_bias: bool

    @property
    def graphs(self) -> tuple[GraphName, ...]:
        """The graphs that read the layer."""
        return _GRAPHS[self.name.partition(".")[0]]


def layers_of(model: ModelSpec) -> list[Layer]:
    """Return all layers of a checkpoint. Layers that are packed into one layer are in the order of its outputs."""
    d, v, t = model.decoder, model.vision, model.transition
    queries, keys = d.query_heads * d.head_dim, d.kv_heads * d.head_dim
    merged = v.width * v.merged_patches
    kernel = (v.width, v.channels, v.temporal_patch_size, v.patch_size, v.patch_size)
    layers = [
        Layer("model.embed_tokens", "embed_tokens", (d.vocab, d.hidden), "table", "integer", has_bias=False),
        _norm("model.norm", "decoder.norm", d.hidden, has_bias=False),
        Layer("visual.patch_embed.proj", "visual.patch_embed", kernel, "linear", "compute", has_bias=False),
        _norm("visual.merger.ln_q", "visual.merger.norm", v.width),
        _linear("visual.merger.mlp.0", "visual.merger.fc1", merged, merged),
        _linear("visual.merger.mlp.2", "visual.merger.fc2", d.hidden, merged),
        _norm(TRANSITION + "ln", "transition.norm", d.hidden),
        Layer(
            TRANSITION + "step_embed",
            "transition.step_embed",
            (t.step_table_rows, d.hidden),
            "table",
            "float32",
            has_bias=False,
        ),
        Layer(TRANSITION + "router", "transition.router", (t.experts, 2 * d.hidden), "linear", "float32", has_bias=True),
    ]
    for expert in [*(f"experts.{index}" for index in range(t.experts)), "shared_expert"]:
        for name, shape in (("fc1", (t.expert_width, d.hidden)), ("fc2", (d.hidden, t.expert_width))):
            stored = f"{TRANSITION}{expert}.{name}"
            layers.append(Layer(stored, f"transition.experts.{name}", shape, "expert", "compute", has_bias=True))
    for index in range(d.layers):
        stored, name = f"model.layers.{index}.", f"decoder.layers.{index}."
        layers += [
            _norm(stored + "input_layernorm", name + "input_norm", d.hidden, has_bias=False),
            _norm(stored + "post_attention_layernorm", name + "post_attention_norm", d.hidden, has_bias=False),
            _linear(stored + "self_attn.q_proj", name + "qkv_proj", queries, d.hidden),
            _linear(stored + "self_attn.k_proj", name + "qkv_proj", keys, d.hidden),
            _linear(stored + "self_attn.v_proj", name + "qkv_proj", keys, d.hidden),
            _linear(stored + "self_attn.o_proj", name + "o_proj", d.hidden, queries, has_bias=False),
            _linear(stored + "mlp.gate_proj", name + "gate_up_proj", d.mlp_width, d.hidden, has_bias=False),
            _linear(stored + "mlp.up_proj", name + "gate_up_proj", d.mlp_width, d.hidden, has_bias=False),
            _linear(stored + "mlp.down_proj", name + "down_proj", d.hidden, d.mlp_width, has_bias=False),
        ]
    for index in range(v.depth):
        block = f"visual.blocks.{index}."
        layers += [
            _norm(block + "norm1", block + "norm1", v.width),
            _norm(block + "norm2", block + "norm2", v.width),
            _linear(block + "attn.qkv", block + "qkv", 3 * v.width, v.width),
            _linear(block + "attn.proj", block + "proj", v.width, v.width),
            _linear(block + "mlp.fc1", block + "fc1", v.mlp_width, v.width),
            _linear(block + "mlp.fc2", block + "fc2", v.width, v.mlp_width),
        ]
    return layers


def expected_tensors(model: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a checkpoint by canonical name, in the order of `layers_of`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers_of(model):
        shapes[f"{layer.stored}.weight"] = layer.shape
        if layer.has_bias:
            shapes[f"{layer.stored}.bias"] = layer.shape[:1]
    return shapes


# Stored key -> canonical name. Prefixes (module., base_model.model.) are dropped. The first match applies.
_CANONICAL: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(r"^(?:.*\.)?" + pattern + "$"), canonical)
    for pattern, canonical in (
        (r"latent_moe_transition\.(.+)", r"latent_moe_transition.\1"),
        (r"visual\.(.+)", r"visual.\1"),
        (r"(layers\.\d+\..+)", r"model.\1"),
        (r"embed_tokens\.weight", TOKEN_TABLE),
        (r"norm\.weight", "model.norm.weight"),
    )
)
_IGNORED = re.compile(r"(^|\.)lm_head\.weight$|inv_freq$")


def canonical_name(key: str) -> str | None:
    """Return the layout-independent name of a stored key; None for a key that PLUME does not need."""
    if _IGNORED.search(key):
        return None
    for pattern, canonical in _CANONICAL:
        if pattern.match(key):
            return pattern.sub(canonical, key)
    return None


def stored_key(name: str, layout: KeyLayout) -> str:
    """Return the key of a canonical name in a checkpoint's files: "flat" as in transformers 4.51, "nested" as in 4.52."""
    if layout == "nested":
        name = re.sub(r"^model\.", "model.language_model.", name)
        name = re.sub(r"^visual\.", "model.visual.", name)
    return name


def _norm(stored: str, name: str, width: int, *, has_bias: bool = True) -> Layer:
    return Layer(stored, name, (width,), "norm", "float32", has_bias)


def _linear(stored: str, name: str, outputs: int, inputs: int, *, has_bias: bool = True) -> Layer:
    return Layer(stored, name, (outputs, inputs), "linear", "integer", has_bias)
