"""The canonical tensors of a PLUME checkpoint and their shapes."""

from .spec import ModelSpec


def expected_tensors(model: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return canonical name -> shape (linear weights are [out, in], as stored)."""
    d, v, t = model.decoder, model.vision, model.transition
    q, kv = d.query_heads * d.head_dim, d.kv_heads * d.head_dim
    merged = v.width * v.merged_patches
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (d.vocab, d.hidden),
        "model.norm.weight": (d.hidden,),
        "visual.patch_embed.proj.weight": (v.width, v.channels, v.temporal_patch_size, v.patch_size, v.patch_size),
        **_norm("visual.merger.ln_q", v.width),
        **_linear("visual.merger.mlp.0", merged, merged),
        **_linear("visual.merger.mlp.2", d.hidden, merged),
        **_norm("latent_moe_transition.ln", d.hidden),
        "latent_moe_transition.step_embed.weight": (t.step_table_rows, d.hidden),
        **_linear("latent_moe_transition.router", t.experts, 2 * d.hidden),
    }
    for expert in [f"experts.{index}" for index in range(t.experts)] + ["shared_expert"]:
        shapes |= _linear(f"latent_moe_transition.{expert}.fc1", t.expert_width, d.hidden)
        shapes |= _linear(f"latent_moe_transition.{expert}.fc2", d.hidden, t.expert_width)
    for index in range(d.layers):
        layer = f"model.layers.{index}"
        shapes |= {f"{layer}.{norm}_layernorm.weight": (d.hidden,) for norm in ("input", "post_attention")}
        for name, width in (("q", q), ("k", kv), ("v", kv)):
            shapes |= _linear(f"{layer}.self_attn.{name}_proj", width, d.hidden)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (d.hidden, q)
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (d.mlp_width, d.hidden) for name in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (d.hidden, d.mlp_width)
    for index in range(v.depth):
        block = f"visual.blocks.{index}"
        shapes |= _norm(f"{block}.norm1", v.width) | _norm(f"{block}.norm2", v.width)
        shapes |= _linear(f"{block}.attn.qkv", 3 * v.width, v.width) | _linear(f"{block}.attn.proj", v.width, v.width)
        shapes |= _linear(f"{block}.mlp.fc1", v.mlp_width, v.width) | _linear(f"{block}.mlp.fc2", v.width, v.mlp_width)
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
