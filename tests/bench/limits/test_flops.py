"""Operations by formula against PyTorch's own count of the modules that the graphs are traced from."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from plume_export.bench.limits.flops import prefill_flops, step_flops, vision_flops
from plume_export.graphs.latent_step import LatentStep
from plume_export.graphs.prefill import Prefill
from plume_export.graphs.vision_encoder import VisionEncoder
from plume_export.spec import PLUME_2B, graph_specs

from ...golden_model import GOLDEN_MODEL

TOKENS, SUFFIX = 24, 4
DECODER, VISION = GOLDEN_MODEL.decoder, GOLDEN_MODEL.vision


def counted(module: torch.nn.Module, *inputs: object) -> int:
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        module.eval()(*inputs)
    return counter.get_total_flops()


def inputs_of(graph: str, **sizes: int) -> dict[str, torch.Tensor]:
    spec = graph_specs(GOLDEN_MODEL, "fp32")[graph]  # type: ignore[index]
    return {
        tensor.name: torch.zeros([sizes.get(str(axis), axis) for axis in tensor.axes], dtype=getattr(torch, tensor.dtype))
        for tensor in spec.inputs
    }


def test_vision() -> None:
    inputs = inputs_of("vision_encoder", frames=2, patches=16)
    module = VisionEncoder(VISION, DECODER.hidden, torch.float32)
    assert vision_flops(GOLDEN_MODEL, 2, 16).total == counted(module, *inputs.values())


def test_prefill_up_to_the_causal_half() -> None:
    inputs = inputs_of("prefill", batch=1, tokens=TOKENS, visual_tokens=4)
    dense = counted(Prefill(DECODER, torch.float32), *inputs.values())
    above_diagonal = (DECODER.layers - 1) * TOKENS * (TOKENS - 1) // 2
    skipped = 4 * above_diagonal * DECODER.query_heads * DECODER.head_dim
    assert prefill_flops(GOLDEN_MODEL, TOKENS).total == dense - skipped


def test_prefill_without_what_is_cached() -> None:
    """What the cached tokens alone would take is left out, but for the rows that are kept: they see every token."""
    cached = 9
    whole, start, rest = (prefill_flops(GOLDEN_MODEL, *tokens) for tokens in ((TOKENS,), (cached,), (TOKENS, cached)))
    kept = prefill_flops(GOLDEN_MODEL, 0)
    seen_by_kept = 2 * cached * 4 * DECODER.query_heads * DECODER.head_dim
    assert rest.linear == whole.linear - (start.linear - kept.linear)
    assert rest.attention == whole.attention - (start.attention - seen_by_kept)


def test_step_and_readout() -> None:
    for suffix in (0, SUFFIX):
        inputs = inputs_of("latent_step", batch=1, tokens=TOKENS, suffix_tokens=suffix)
        keys, values = (
            [inputs.pop(f"prefix_{kind}_{layer}") for layer in range(DECODER.layers)] for kind in ("keys", "values")
        )
        order = ("state", "anchor", "step", "suffix_embeddings")
        rest = ("token_count", "rollout_keys", "rollout_values")
        arguments = [*(inputs[name] for name in order), keys, values, *(inputs[name] for name in rest)]
        module = LatentStep(GOLDEN_MODEL, torch.float32)
        assert step_flops(GOLDEN_MODEL, TOKENS, 1 + suffix).total == counted(module, *arguments)


def test_the_published_model_by_hand() -> None:
    """A token of the decoder: 28 layers of 46.8 million weights, two operations each."""
    layer = 1536 * (1536 + 2 * 256) + 1536 * 1536 + 3 * 1536 * 8960
    experts = 5 * 2 * 1536 * 3072 + 2 * 1536 * 4
    assert step_flops(PLUME_2B, 100, 1).linear == 2 * (28 * layer + experts)
    assert step_flops(PLUME_2B, 100, 1).attention == 28 * (100 + 8 + 1) * 4 * 1536
