"""Operations of each graph, counted from the model's dimensions: two for a product and its sum.

Counted is what a perfect program would compute with these graphs: causal attention only up to the diagonal, in prefill's last
layer the two rows that are kept. Norms, rotary and softmax are left out; they are a few thousandths.
"""

from dataclasses import dataclass

from ...spec import DecoderSpec, ModelSpec


@dataclass(frozen=True)
class Flops:
    """Operations of linear layers, and of the two products of attention."""

    linear: int
    attention: int

    @property
    def total(self) -> int:
        return self.linear + self.attention

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.linear + other.linear, self.attention + other.attention)


def vision_flops(model: ModelSpec, frames: int, patches: int) -> Flops:
    """Return the operations of graph `vision_encoder` for [frames, patches]; attention is full within a frame."""
    vision, hidden = model.vision, model.decoder.hidden
    rows, merged_width = frames * patches, vision.width * vision.merged_patches
    block = vision.width * (4 * vision.width + 2 * vision.mlp_width)  # queries, keys, values, output; MLP
    merger = merged_width * (merged_width + hidden)
    embed = vision.patch_values * vision.width
    linear = rows * (embed + vision.depth * block) + rows // vision.merged_patches * merger
    pairs = frames * patches * patches
    return Flops(2 * linear, vision.depth * _attention_flops(pairs, vision.width))


def prefill_flops(model: ModelSpec, tokens: int, cached_tokens: int = 0) -> Flops:
    """Return the operations of graph `prefill` for one prompt of so many tokens, the first `cached_tokens` of them cached."""
    decoder = model.decoder
    project, finish = _projection_values(decoder), _finish_values(decoder)
    kept = 2  # state and anchor
    computed = tokens - cached_tokens
    linear = decoder.layers * computed * project + (decoder.layers - 1) * computed * finish + kept * finish
    pairs = (decoder.layers - 1) * (tokens * (tokens + 1) - cached_tokens * (cached_tokens + 1)) // 2 + kept * tokens
    return Flops(2 * linear, _attention_flops(pairs, _query_width(decoder)))


def step_flops(model: ModelSpec, tokens: int, rows: int) -> Flops:
    """Return the operations of graph `latent_step` for one prompt. `rows`: the latent token, on the last step the suffix too.

    All experts are computed, and all slots of the rollout's cache are seen by attention, as the graph does.
    """
    decoder, transition = model.decoder, model.transition
    experts = (transition.experts + 1) * 2 * decoder.hidden * transition.expert_width
    router = 2 * decoder.hidden * transition.experts
    layers = decoder.layers * rows * (_projection_values(decoder) + _finish_values(decoder))
    pairs = decoder.layers * rows * (tokens + model.rollout.latent_steps + rows)
    return Flops(2 * (experts + router + layers), _attention_flops(pairs, _query_width(decoder)))


def _attention_flops(pairs: int, width: int) -> int:
    """For each query and key that it sees: a product for the score, and one with the value."""
    return 4 * pairs * width


def _query_width(decoder: DecoderSpec) -> int:
    return decoder.query_heads * decoder.head_dim


def _projection_values(decoder: DecoderSpec) -> int:
    """Weights of queries, keys and values in one layer."""
    return decoder.hidden * (decoder.query_heads + 2 * decoder.kv_heads) * decoder.head_dim


def _finish_values(decoder: DecoderSpec) -> int:
    """Weights of the output projection and the MLP in one layer."""
    return decoder.hidden * (_query_width(decoder) + 3 * decoder.mlp_width)
