"""Graph `latent_step`: the transition, then one decoder pass over the latent token and, at the end, the suffix."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..spec import DecoderSpec, ModelSpec, TransitionSpec
from .layers import MASKED_SCORE, Decoder, DecoderLayer, Linear, rotary_from_angles

LAYER_NORM_EPSILON = 1e-5


class ExpertStack(nn.Module):
    """All experts, and as the last one the shared expert, computed as two batched matmuls [experts + 1, ...]."""

    def __init__(self, hidden: int, spec: TransitionSpec, dtype: torch.dtype) -> None:
        super().__init__()
        stacked = spec.experts + 1
        self.fc1_weight = nn.Parameter(torch.empty(stacked, hidden, spec.expert_width, dtype=dtype))
        self.fc1_bias = nn.Parameter(torch.empty(stacked, 1, spec.expert_width, dtype=dtype))
        self.fc2_weight = nn.Parameter(torch.empty(stacked, spec.expert_width, hidden, dtype=dtype))
        self.fc2_bias = nn.Parameter(torch.empty(stacked, 1, hidden, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, hidden] to float32 [experts + 1, batch, hidden]."""
        inner = torch.nn.functional.gelu(x.to(self.fc1_weight.dtype)[None] @ self.fc1_weight + self.fc1_bias)
        return (inner @ self.fc2_weight + self.fc2_bias).float()


class Transition(nn.Module):
    """PLUME's semantic-anchor-guided mixture of experts, which computes the next latent token from the state.

    All experts are computed, and those not chosen get weight zero, so there is no data-dependent control flow. The
    probabilities of the chosen experts are not renormalised.
    """

    def __init__(self, hidden: int, spec: TransitionSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        self.norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON, dtype=torch.float32)
        self.step_embed = nn.Embedding(spec.step_table_rows, hidden, dtype=torch.float32)
        self.router = Linear(2 * hidden, spec.experts, torch.float32)
        self.experts = ExpertStack(hidden, spec, dtype)

    def forward(self, state: Tensor, anchor: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent token [batch, hidden] and the router's probabilities [batch, experts]."""
        # minimum instead of clamp, because TensorRT 10.0 supports Clip for floats only.
        row = torch.minimum(step, torch.full_like(step, self.spec.step_table_rows - 1))
        step_row = self.step_embed(row).expand_as(state)
        probabilities = torch.softmax(self.router(torch.cat([state + anchor, step_row], -1)), -1)
        chosen, chosen_index = probabilities.topk(self.spec.top_k, -1)  # [batch, top_k]
        is_chosen = chosen_index[..., None] == torch.arange(self.spec.experts)
        gates = torch.where(is_chosen, chosen[..., None], torch.zeros(())).sum(1)  # [batch, experts]
        gates = torch.cat([gates, torch.ones_like(gates[:, :1])], -1)  # the shared expert counts in full
        outputs = self.experts(self.norm(state))  # [experts + 1, batch, hidden]
        return state + (outputs * gates.T[..., None]).sum(0), probabilities


class CachePart(NamedTuple):
    """Keys and values [batch, kv_heads, tokens, head_dim], and a mask `seen` of those that each query row attends to."""

    keys: Tensor
    values: Tensor
    seen: Tensor

    def masked_scores(self, queries: Tensor) -> Tensor:
        scores = queries @ self.keys.transpose(-1, -2)
        return torch.where(self.seen, scores, torch.tensor(MASKED_SCORE, dtype=scores.dtype))


class LatentStep(nn.Module):
    """Module with the inputs and outputs of `spec.graph_specs()["latent_step"]`.

    The cache is split: prefix keys are only read, rollout slots below `step` are valid, and the keys of this pass are appended.
    A token's position is its KV length on all three rotary axes, as in the published evaluation. Only `step` determines mask,
    position and step embedding, so shapes stay fixed during a rollout.
    """

    def __init__(self, model: ModelSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec: DecoderSpec = model.decoder
        self.transition = Transition(model.decoder.hidden, model.transition, dtype)
        self.decoder = Decoder(model.decoder, dtype)

    def forward(
        self,
        state: Tensor,
        anchor: Tensor,
        step: Tensor,
        suffix_embeddings: Tensor,
        prefix_keys: list[Tensor],
        prefix_values: list[Tensor],
        token_count: Tensor,
        rollout_keys: Tensor,
        rollout_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        latent, router_probabilities = self.transition(state, anchor, step)
        suffix = suffix_embeddings.float()[None].expand(state.shape[0], -1, -1)
        hidden = torch.cat([latent[:, None], suffix], 1)  # [batch, rows, hidden]
        rows = torch.arange(hidden.shape[1])
        positions = (token_count[:, None] + step + rows).float()  # [batch, rows]
        rotary = rotary_from_angles((positions[..., None] * self.decoder.inverse_frequencies)[:, None])
        prefix_seen = torch.arange(prefix_keys[0].shape[2]) < token_count[:, None, None, None]  # [batch, 1, 1, tokens]
        recent_seen = self._recent_seen(rollout_keys.shape[0], step, rows)
        step_keys, step_values = [], []
        for index, layer in enumerate(cast("list[DecoderLayer]", list(self.decoder.layers))):
            queries, keys, values = layer.project(hidden, rotary)
            recent_keys = torch.cat([rollout_keys[:, index].permute(1, 2, 0, 3), keys], 2)
            recent_values = torch.cat([rollout_values[:, index].permute(1, 2, 0, 3), values], 2)
            parts = (
                CachePart(prefix_keys[index], prefix_values[index], prefix_seen),
                CachePart(recent_keys, recent_values, recent_seen),
            )
            hidden = layer.finish(hidden, self._attend_split_cache(queries, *parts))
            step_keys.append(keys[:, :, 0])
            step_values.append(values[:, :, 0])
        next_state = self.decoder.norm(hidden[:, -1])
        return next_state, torch.stack(step_keys), torch.stack(step_values), router_probabilities

    def _recent_seen(self, slots: int, step: Tensor, rows: Tensor) -> Tensor:
        """Return the rollout slots and rows of this pass that each query row attends to: [groups * rows, slots + rows]."""
        groups = self.spec.query_heads // self.spec.kv_heads
        filled = (torch.arange(slots) < step)[None].expand(rows.shape[0], -1)
        causal = rows <= rows[:, None]
        return torch.cat([filled, causal], 1).repeat(groups, 1)

    def _attend_split_cache(self, queries: Tensor, prefix: CachePart, recent: CachePart) -> Tensor:
        """Attend over both cache parts with one softmax. The query heads of a group are stacked along the row axis."""
        batch, heads, rows, head_dim = queries.shape
        grouped = queries.reshape(batch, self.spec.kv_heads, -1, head_dim)  # [batch, kv_heads, groups * rows, head_dim]
        scores = torch.cat([prefix.masked_scores(grouped), recent.masked_scores(grouped)], -1)
        weights = torch.softmax(scores.float(), -1).to(queries.dtype)
        tokens = prefix.keys.shape[2]
        attended = weights[..., :tokens] @ prefix.values + weights[..., tokens:] @ recent.values
        return attended.reshape(batch, heads, rows, head_dim)
