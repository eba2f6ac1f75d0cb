"""Each stage's measured time beside the least that this machine allows for it.

The limit of a stage is the larger of two times: for its operations at the fastest products that were measured, and for the
weights that it reads at the fastest reading that was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from ..batch_memory import DTYPE_BYTES
from ..bundle import Bundle, Manifest
from ..spec import GraphName
from .inputs import InputSize
from .latency import Latency
from .limits.flops import Flops, prefill_flops, step_flops, vision_flops
from .limits.machine_limits import MachineLimits
from .limits.products import attention_products, linear_products
from .limits.weight_reads import WeightReads, weight_reads
from .rollout_parts import RolloutParts

Bound = Literal["products", "memory"]


class StageLimit(msgspec.Struct, frozen=True):
    """One stage of one input. `bound_by` says which limit counts; None where the machine's limits were not measured.

    `share_of_limit` is the limit divided by the measured time: 1 is what the hardware allows.
    """

    input: str
    stage: str
    flops: int
    bytes: int
    measured_ms: float
    limit_ms: float | None
    bound_by: Bound | None
    share_of_limit: float | None


@dataclass(frozen=True)
class Work:
    """What a stage computes and reads."""

    graph: GraphName
    flops: Flops
    bytes: int


def roofline(
    bundle: Bundle,
    machine: MachineLimits,
    sizes: Sequence[InputSize],
    measured: Sequence[Latency],
    rollouts: Sequence[RolloutParts],
    suffix_tokens: int,
) -> list[StageLimit]:
    """Return every stage of every input: vision, prefill, one latent step, and the readout with its suffix."""
    reads = {graph: weight_reads(bundle, graph) for graph in bundle.manifest.graphs}
    stages = {latency.input: latency.stages_ms for latency in measured}
    parts = {rollout.input: rollout for rollout in rollouts}
    limits = []
    for size in sizes:
        rollout, spreads = parts[size.name], stages[size.name]
        times: dict[str, float] = {name: spreads[name].p50 for name in ("vision", "prefill") if name in spreads}
        times |= {"latent step": rollout.step_ms.p50, "readout": rollout.readout_ms.p50}
        work = work_of_stages(bundle.manifest, reads, size, suffix_tokens)
        limits += [_stage_limit(bundle.manifest, machine, size.name, name, work[name], times[name]) for name in times]
    return limits


def work_of_stages(
    manifest: Manifest, reads: Mapping[GraphName, WeightReads], size: InputSize, suffix_tokens: int
) -> dict[str, Work]:
    """Return what every stage of one input computes and reads. A text has no stage `vision`."""
    model, tokens = manifest.model, size.prompt_tokens
    cached = _cached_tokens(manifest, size)
    work = {"prefill": Work("prefill", prefill_flops(model, tokens, cached), reads["prefill"].bytes_of(tokens - cached))}
    if size.vision:
        counts = [vision_flops(model, frames, patches) for frames, patches in size.vision]
        weights = len(size.vision) * reads["vision_encoder"].bytes_of(0)  # each medium is a pass
        work["vision"] = Work("vision_encoder", sum(counts, Flops(0, 0)), weights)
    cache = tokens * _cache_bytes_of_token(manifest)
    for stage, rows in (("latent step", 1), ("readout", 1 + suffix_tokens)):
        work[stage] = Work("latent_step", step_flops(model, tokens, rows), reads["latent_step"].bytes_of(1) + cache)
    return work


def limit_seconds(manifest: Manifest, machine: MachineLimits, work: Work) -> tuple[float, Bound] | None:
    """Return the least time for a stage and what sets it; None where one of the limits was not measured."""
    linear = machine.flops_per_s.get(linear_products(manifest, work.graph))
    attention = machine.flops_per_s.get(attention_products(manifest, work.graph))
    if linear is None or attention is None or machine.read_bytes_per_s is None:
        return None
    products = work.flops.linear / linear + work.flops.attention / attention
    memory = work.bytes / machine.read_bytes_per_s
    return (products, "products") if products > memory else (memory, "memory")


def _stage_limit(
    manifest: Manifest, machine: MachineLimits, name: str, stage: str, work: Work, measured_ms: float
) -> StageLimit:
    limit = limit_seconds(manifest, machine, work)
    limit_ms, bound_by = (None, None) if limit is None else (1e3 * limit[0], limit[1])
    share = None if limit_ms is None or measured_ms <= 0 else limit_ms / measured_ms
    return StageLimit(name, stage, work.flops.total, work.bytes, measured_ms, limit_ms, bound_by, share)


def _cached_tokens(manifest: Manifest, size: InputSize) -> int:
    """Tokens of an input's prompt that prefill does not compute."""
    start = manifest.cached_start
    if start is None:
        return 0
    return start.any_prompt_tokens if size.vision else start.text_tokens


def _cache_bytes_of_token(manifest: Manifest) -> int:
    """Keys and values of one prompt token in all layers, which every step reads."""
    dtype = next(tensor.dtype for tensor in manifest.graphs["latent_step"].inputs if tensor.name == "rollout_keys")
    decoder = manifest.model.decoder
    return 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * DTYPE_BYTES[dtype]
