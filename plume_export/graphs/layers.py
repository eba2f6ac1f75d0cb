"""The layers that the three graphs are made of, with the dtype of every computation written out.

Matmuls and the values between them have the compute dtype (float32, float16 or bfloat16). The residual stream, norms, rotary
tables and softmax are float32. A linear weight is stored as [in, out], so that the layer becomes one MatMul in ONNX.
"""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..spec import DecoderSpec

# Replaces masked scores; it is not added to them. It is float16's lowest value, so its exponential in the softmax is exactly 0.
MASKED_SCORE = -65504.0


class Linear(nn.Module):
    """`x @ weight + bias` in the dtype of the weight; weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype, *, has_bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(outputs, dtype=dtype)) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        product = x.to(self.weight.dtype) @ self.weight
        return product if self.bias is None else product + self.bias


def keep_in_float32(module: nn.Module, layers: Collection[str]) -> None:
    """Replace the parameters of the named linear layers (or stacks of experts) by float32 ones, so that they run in float32."""
    for name, layer in module.named_modules():
        if name in layers:
            for key, parameter in list(layer.named_parameters(recurse=False)):
                setattr(layer, key, nn.Parameter(torch.empty_like(parameter, dtype=torch.float32)))


def widened(x: Tensor, layer: Linear) -> Tensor:
    """Return x in float32 if `layer`, which uses it later, is in float32, because values on the way may overflow as well."""
    return x.to(torch.promote_types(x.dtype, layer.weight.dtype))


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, dtype=torch.float32))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        variance = (x * x).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.epsilon))


class Rotary(NamedTuple):
    """Cosine and sine of the rotary angles, float32, broadcastable to [batch, heads, tokens, head_dim / 2]."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate the halves of the last axis, in float32."""
        first, second = x.float().chunk(2, -1)
        return torch.cat([first * self.cos - second * self.sin, second * self.cos + first * self.sin], -1)


def rotary_from_angles(angles: Tensor) -> Rotary:
    return Rotary(angles.cos(), angles.sin())


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention on [batch, heads, rows, head_dim]. Queries are already scaled. `mask` is True for keys to attend to.

    Plain 4-D matmuls, a mask applied by Where, and only the softmax in float32: TensorRT fuses this form.
    """
    scores = queries @ keys.transpose(-1, -2)
    if mask is not None:
        scores = torch.where(mask, scores, torch.tensor(MASKED_SCORE, dtype=scores.dtype))
    return torch.softmax(scores.float(), -1).to(values.dtype) @ values


class DecoderLayer(nn.Module):
    """One Qwen2 decoder layer without its attention, which differs by graph: call `project`, then attention, then `finish`."""

    def __init__(self, spec: DecoderSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec, self.dtype = spec, dtype
        query_width = spec.query_heads * spec.head_dim
        self.input_norm = RMSNorm(spec.hidden, spec.norm_epsilon)
        self.qkv_proj = Linear(spec.hidden, query_width + 2 * spec.kv_heads * spec.head_dim, dtype)
        self.o_proj = Linear(query_width, spec.hidden, dtype, has_bias=False)
        self.post_attention_norm = RMSNorm(spec.hidden, spec.norm_epsilon)
        self.gate_up_proj = Linear(spec.hidden, 2 * spec.mlp_width, dtype, has_bias=False)
        self.down_proj = Linear(spec.mlp_width, spec.hidden, dtype, has_bias=False)

    def project(self, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Return scaled rotated queries [batch, heads, tokens, head_dim], rotated keys and values [batch, kv_heads, ...]."""
        spec = self.spec
        heads = (spec.query_heads, spec.kv_heads, spec.kv_heads)
        qkv = self.qkv_proj(self.input_norm(hidden)).to(self.dtype)  # [batch, tokens, (heads + 2 kv_heads) * head_dim]
        qkv = qkv.unflatten(-1, (sum(heads), spec.head_dim)).transpose(1, 2)
        queries, keys, values = qkv.split(heads, 1)
        queries = rotary.rotate(queries) * spec.head_dim**-0.5
        return queries.to(values.dtype), rotary.rotate(keys).to(values.dtype), values

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Add the attention output [batch, heads, tokens, head_dim] and the MLP to the residual stream."""
        hidden = hidden + self.o_proj(attended.transpose(1, 2).flatten(2)).float()
        gate, up = widened(self.gate_up_proj(self.post_attention_norm(hidden)), self.down_proj).chunk(2, -1)
        return hidden + self.down_proj(torch.nn.functional.silu(gate) * up).float()


class Decoder(nn.Module):
    """The decoder's layers, final norm and rotary frequencies."""

    def __init__(self, spec: DecoderSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(spec, dtype) for _ in range(spec.layers)])
        self.norm = RMSNorm(spec.hidden, spec.norm_epsilon)
        # A parameter, not a buffer, so that it is stored with the weights. Its values are computed as in Qwen2-VL.
        self.inverse_frequencies = nn.Parameter(torch.empty(spec.head_dim // 2, dtype=torch.float32))
