"""Limits by hand-checked numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plume_export.bench.hardware_limits import MachineLimits
from plume_export.bench.inputs import InputSize
from plume_export.bench.roofline import (
    Flops,
    WeightReads,
    Work,
    limit_seconds,
    prefill_flops,
    step_flops,
    vision_flops,
    weight_reads,
    work_of_stages,
)
from plume_export.bundle import Bundle
from plume_export.graphs.latent_step import LatentStep
from plume_export.graphs.prefill import Prefill
from plume_export.graphs.vision_encoder import VisionEncoder
from plume_export.memory_plan import bytes_read_by_pass
from plume_export.spec import GRAPH_NAMES, PLUME_2B, graph_specs
from tests.golden_model import GOLDEN_MODEL

from .manifests import NO_PROMISE, changed

MACHINE = MachineLimits(read_bytes_per_s=10e9, flops_per_s={"float32": 100e9, "int8": 400e9}, reasons={})


def test_the_longer_of_two_times_is_the_limit(tiny_cpu: Bundle) -> None:
    manifest = tiny_cpu.manifest
    many = Work("prefill", Flops(linear=180 * 10**9, attention=20 * 10**9), bytes=10**9)
    assert limit_seconds(manifest, MACHINE, many) == (pytest.approx(2.0), "products")
    few = Work("latent_step", Flops(linear=10**9, attention=0), bytes=3 * 10**9)
    assert limit_seconds(manifest, MACHINE, few) == (pytest.approx(0.3), "memory")


def test_int8_layers_have_a_speed_of_their_own(tiny_cpu: Bundle) -> None:
    manifest = changed(tiny_cpu, precision="int8", quantisation=NO_PROMISE)
    work = Work("prefill", Flops(linear=400 * 10**9, attention=100 * 10**9), bytes=0)
    assert limit_seconds(manifest, MACHINE, work) == (pytest.approx(2.0), "products")  # a second each


def test_what_was_not_measured_gives_no_limit(tiny_cpu: Bundle) -> None:
    work = Work("prefill", Flops(1, 1), 1)
    assert limit_seconds(tiny_cpu.manifest, MachineLimits(None, {"float32": 1e9}, {}), work) is None
    assert limit_seconds(tiny_cpu.manifest, MachineLimits(1e9, {}, {}), work) is None


def test_work_counts_every_medium_and_the_cache(tiny_cpu: Bundle) -> None:
    reads = dict.fromkeys(GRAPH_NAMES, WeightReads(whole=1000, row=10))
    size = InputSize("a", prompt_tokens=50, visual_tokens=32, vision=[(1, 64), (1, 64)])
    work = work_of_stages(tiny_cpu.manifest, reads, size, suffix_tokens=5)
    decoder = tiny_cpu.manifest.model.decoder
    cache = 50 * 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * 4
    assert work["vision"].bytes == 2000
    assert work["prefill"].bytes == 1000 + (50 - 16) * 10
    assert work["latent step"].bytes == work["readout"].bytes == 1010 + cache
    assert work["readout"].flops.total > 4 * work["latent step"].flops.total
    assert "vision" not in work_of_stages(tiny_cpu.manifest, reads, InputSize("b", 50, 4, []), 5)


def test_cached_tokens_are_no_work(tiny_cpu: Bundle) -> None:
    reads = dict.fromkeys(GRAPH_NAMES, WeightReads(whole=1000, row=10))
    sizes = {"text": InputSize("a", 50, 4, []), "picture": InputSize("b", 50, 4, [(1, 16)])}
    for name, cached in (("text", 21), ("picture", 16)):
        work = work_of_stages(tiny_cpu.manifest, reads, sizes[name], 5)["prefill"]
        assert work.flops == prefill_flops(tiny_cpu.manifest.model, 50, cached)
        assert work.bytes == 1000 + (50 - cached) * 10
    without = work_of_stages(changed(tiny_cpu, cached_start=None), reads, sizes["text"], 5)["prefill"]
    assert without.flops == prefill_flops(tiny_cpu.manifest.model, 50)


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


@pytest.mark.parametrize("graph", GRAPH_NAMES)
def test_weights_read_are_those_of_the_model(tiny_cpu: Bundle, graph: str) -> None:
    """The plan counts from dimensions, this from the file: apart by rotary tables and small constants alone."""
    counted = weight_reads(tiny_cpu, graph)  # type: ignore[arg-type]
    planned = bytes_read_by_pass(tiny_cpu.manifest.model, "fp32", graph)  # type: ignore[arg-type]
    table = 32 * 128 * 4 if graph == "latent_step" else 0  # of steps, of which a row is read
    assert counted.whole == pytest.approx(planned - table, rel=0.002)
    assert counted.row == (0 if graph == "vision_encoder" else 128 * 4)


def test_float16_is_read_as_onnx_runtime_holds_it(tiny_cpu: Bundle, tiny_fp16: Bundle) -> None:
    for graph in GRAPH_NAMES:
        assert weight_reads(tiny_fp16, graph).whole == pytest.approx(weight_reads(tiny_cpu, graph).whole, rel=0.002)
