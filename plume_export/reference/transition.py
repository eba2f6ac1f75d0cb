"""The semantic-anchor-guided mixture of experts, as literally as PyTorch allows (PLUME, section 3)."""

import torch
from torch import Tensor, nn

from ..spec import TransitionSpec


class Expert(nn.Module):
    """Linear, GELU (erf), Linear."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, width)
        self.fc2 = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


class LatentTransition(nn.Module):
    """The transition of one latent step. Its parameters have the names of the checkpoint's `latent_moe_transition` tensors."""

    def __init__(self, hidden: int, spec: TransitionSpec) -> None:
        super().__init__()
        self.top_k = spec.top_k
        self.ln = nn.LayerNorm(hidden)
        self.step_embed = nn.Embedding(spec.step_table_rows, hidden)
        self.router = nn.Linear(2 * hidden, spec.experts)
        self.experts = nn.ModuleList([Expert(hidden, spec.expert_width) for _ in range(spec.experts)])
        self.shared_expert = Expert(hidden, spec.expert_width)

    def forward(self, state: Tensor, anchor: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Map state and anchor [hidden] to the latent token [hidden] and the router probabilities [experts]."""
        step_row = self.step_embed.weight[min(step, self.step_embed.num_embeddings - 1)]
        probabilities = torch.softmax(self.router(torch.cat([state + anchor, step_row])).float(), -1)
        chosen = probabilities.topk(self.top_k)
        normed = self.ln(state)
        mixed = self.shared_expert(normed)
        for weight, index in zip(chosen.values, chosen.indices.tolist(), strict=True):
            mixed = mixed + weight.to(state.dtype) * self.experts[index](normed)
        return state + mixed, probabilities
