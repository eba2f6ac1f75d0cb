"""Graph `prefill`: runs the prompt through the decoder and returns two states, and the keys and values of every layer."""

from typing import cast

import torch
from torch import Tensor, nn

from ..spec import DecoderSpec
from .layers import Decoder, DecoderLayer, Rotary, attend, rotary_from_angles


class Prefill(nn.Module):
    """Module with the inputs and outputs of `spec.graph_specs()["prefill"]`.

    Prompts are padded on the right. With causal attention no real token attends to the padding, so there is no padding mask.
    The last layer computes queries, MLP and norm only for the two rows that are returned: state and anchor.
    """

    def __init__(self, spec: DecoderSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab, spec.hidden, dtype=dtype)
        self.decoder = Decoder(spec, dtype)

    def forward(
        self,
        input_ids: Tensor,
        visual_embeddings: Tensor,
        visual_index: Tensor,
        position_ids: Tensor,
        token_count: Tensor,
        anchor_index: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return state, anchor, the keys of every layer, then the values of every layer."""
        # maximum instead of clamp, because TensorRT 10.0 supports Clip for floats only.
        rows = torch.maximum(visual_index, torch.zeros_like(visual_index))
        visual_rows = visual_embeddings[rows]  # [batch, tokens, hidden]
        hidden = torch.where(visual_index[..., None] >= 0, visual_rows, self.embed_tokens(input_ids)).float()
        rotary = self._rotary(position_ids)
        order = torch.arange(input_ids.shape[1])
        causal = order <= order[:, None]  # [tokens, tokens]
        keys, values = [], []
        *layers, last_layer = cast("list[DecoderLayer]", list(self.decoder.layers))
        for layer in layers:
            layer_queries, layer_keys, layer_values = layer.project(hidden, rotary)
            attended = attend(layer_queries, *self._expand_heads(layer_keys, layer_values), causal)
            hidden = layer.finish(hidden, attended)
            keys.append(layer_keys)
            values.append(layer_values)
        kept_index = torch.stack([token_count - 1, anchor_index], 1)  # [batch, 2]
        kept, layer_keys, layer_values = self._finish_kept_rows(last_layer, hidden, rotary, kept_index)
        state, anchor = self.decoder.norm(kept).unbind(1)
        return state, anchor, *keys, layer_keys, *values, layer_values

    def _rotary(self, position_ids: Tensor) -> Rotary:
        """Return the rotary tables. Each frequency uses the temporal, height or width position (M-RoPE sections)."""
        frequencies = self.decoder.inverse_frequencies.split(self.spec.mrope_sections)
        angles = [position_ids[axis, ..., None].float() * part for axis, part in enumerate(frequencies)]
        return rotary_from_angles(torch.cat(angles, -1)[:, None])  # [batch, 1, tokens, head_dim / 2]

    def _expand_heads(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Repeat every key/value head for its group of query heads: [batch, heads, tokens, head_dim]."""
        groups = self.spec.query_heads // self.spec.kv_heads
        batch, kv_heads, tokens, head_dim = keys.shape
        expanded = (batch, kv_heads, groups, tokens, head_dim)
        return keys[:, :, None].expand(expanded).flatten(1, 2), values[:, :, None].expand(expanded).flatten(1, 2)

    def _finish_kept_rows(
        self, layer: DecoderLayer, hidden: Tensor, rotary: Rotary, kept_index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the last layer only for the rows `kept_index` [batch, 2]. Return these rows and the layer's keys and values."""
        queries, keys, values = layer.project(hidden, rotary)
        rows = (torch.arange(hidden.shape[0])[:, None], kept_index)
        kept_queries = queries.transpose(1, 2)[rows].transpose(1, 2)  # [batch, heads, 2, head_dim]
        seen = torch.arange(hidden.shape[1]) <= kept_index[:, None, :, None]  # [batch, 1, 2, tokens]
        attended = attend(kept_queries, *self._expand_heads(keys, values), seen)
        return layer.finish(hidden[rows], attended), keys, values
