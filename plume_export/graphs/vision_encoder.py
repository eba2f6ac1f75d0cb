"""Graph `vision_encoder`: patches of equal-sized frames to visual embeddings (Qwen2-VL's vision encoder)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..spec import VisionSpec
from .layers import Linear, Rotary, attend, rotary_from_angles, widened

LAYER_NORM_EPSILON = 1e-6
# Takes queries, keys, values and no mask; returns the attention output.
Attend = Callable[[Tensor, Tensor, Tensor, None], Tensor]


class VisionBlock(nn.Module):
    """One block: attention within a frame, then an MLP with quick-GELU."""

    def __init__(self, spec: VisionSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.head_dim, self.dtype = spec.heads, spec.head_dim, dtype
        self.attend: Attend = attend  # calibration replaces it, because here all scores of an image are in memory
        self.norm1 = nn.LayerNorm(spec.width, eps=LAYER_NORM_EPSILON, dtype=torch.float32)
        self.qkv = Linear(spec.width, 3 * spec.width, dtype)
        self.proj = Linear(spec.width, spec.width, dtype)
        self.norm2 = nn.LayerNorm(spec.width, eps=LAYER_NORM_EPSILON, dtype=torch.float32)
        self.fc1 = Linear(spec.width, spec.mlp_width, dtype)
        self.fc2 = Linear(spec.mlp_width, spec.width, dtype)

    def forward(self, hidden: Tensor, rotary: Rotary) -> Tensor:
        qkv = self.qkv(self.norm1(hidden)).to(self.dtype).unflatten(-1, (3 * self.heads, self.head_dim)).transpose(1, 2)
        queries, keys, values = qkv.chunk(3, 1)  # [frames, heads, patches, head_dim]
        queries = (rotary.rotate(queries) * self.head_dim**-0.5).to(values.dtype)
        attended = self.attend(queries, rotary.rotate(keys).to(values.dtype), values, None)
        hidden = hidden + self.proj(attended.transpose(1, 2).flatten(2)).float()
        inner = widened(self.fc1(self.norm2(hidden)), self.fc2)
        return hidden + self.fc2(inner * torch.sigmoid(1.702 * inner)).float()


class PatchMerger(nn.Module):
    """Merges four neighbouring patches into one visual token of the decoder's width."""

    def __init__(self, spec: VisionSpec, hidden: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.merged_width, self.dtype = spec.width * spec.merged_patches, dtype
        self.norm = nn.LayerNorm(spec.width, eps=LAYER_NORM_EPSILON, dtype=torch.float32)
        self.fc1 = Linear(self.merged_width, self.merged_width, dtype)
        self.fc2 = Linear(self.merged_width, hidden, dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        merged = self.norm(hidden).reshape(-1, self.merged_width)
        return self.fc2(torch.nn.functional.gelu(widened(self.fc1(merged), self.fc2))).to(self.dtype)


class VisionTransformer(nn.Module):
    """The weights of the vision encoder."""

    def __init__(self, spec: VisionSpec, hidden: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.patch_embed = Linear(spec.patch_values, spec.width, dtype, has_bias=False)
        self.inverse_frequencies = nn.Parameter(torch.empty(spec.head_dim // 4, dtype=torch.float32))
        self.blocks = nn.ModuleList([VisionBlock(spec, dtype) for _ in range(spec.depth)])
        self.merger = PatchMerger(spec, hidden, dtype)


class VisionEncoder(nn.Module):
    """Maps patches [frames, patches, patch_values] and patch_positions [patches, 2] to visual_embeddings
    [visual_tokens, hidden].

    Attention is full within a frame. The frame axis is the batch axis, so no mask is needed.
    """

    def __init__(self, spec: VisionSpec, hidden: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.visual = VisionTransformer(spec, hidden, dtype)

    def forward(self, patches: Tensor, patch_positions: Tensor) -> Tensor:
        visual = self.visual
        angles = patch_positions[..., None].float() * visual.inverse_frequencies  # [patches, 2, head_dim / 4]
        rotary = rotary_from_angles(angles.flatten(1))  # [patches, head_dim / 2]
        hidden = visual.patch_embed(patches).float()
        for block in visual.blocks:
            hidden = block(hidden, rotary)
        return visual.merger(hidden)
