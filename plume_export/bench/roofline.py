"""The measured time of each stage, compared with the minimum time on this machine.

The minimum time of a stage is the larger of two times: its operations divided by the measured matmul rate, and the bytes of
weights and cache that it reads divided by the measured read rate.

Operations are computed from the model's dimensions; a multiply-add counts as two. Only necessary operations count: causal
attention up to the diagonal, and in the last layer of prefill only the two output rows. Norms, rotary embeddings and softmax
are left out, because they are a few thousandths of the total.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from ..batch_memory import DTYPE_BYTES
from ..bundle import Bundle, Manifest
from ..memory_plan import bytes_read_by_pass
from ..spec import DecoderSpec, GraphName, ModelSpec
from .hardware_limits import MachineLimits, attention_matmuls, is_on_gpu, linear_matmuls
from .inputs import InputSize
from .latency import Latency, RolloutParts


@dataclass(frozen=True)
class Flops:
    """Operations of linear layers, and of the two matmuls of attention."""

    linear: int
    attention: int

    @property
    def total(self) -> int:
        return self.linear + self.attention

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.linear + other.linear, self.attention + other.attention)


def vision_flops(model: ModelSpec, frames: int, patches: int) -> Flops:
    """Return the operations of graph `vision_encoder` for [frames, patches]. Attention is full within a frame."""
    vision, hidden = model.vision, model.decoder.hidden
    rows, merged_width = frames * patches, vision.width * vision.merged_patches
    block = vision.width * (4 * vision.width + 2 * vision.mlp_width)  # queries, keys, values, output; MLP
    merger = merged_width * (merged_width + hidden)
    embed = vision.patch_values * vision.width
    linear = rows * (embed + vision.depth * block) + rows // vision.merged_patches * merger
    pairs = frames * patches * patches
    return Flops(2 * linear, vision.depth * _attention_flops(pairs, vision.width))


def prefill_flops(model: ModelSpec, tokens: int, cached_tokens: int = 0) -> Flops:
    """Return the operations of graph `prefill` for a prompt of `tokens` tokens, the first `cached_tokens` of them cached."""
    decoder = model.decoder
    project, finish = _projection_values(decoder), _finish_values(decoder)
    kept = 2  # state and anchor
    computed = tokens - cached_tokens
    linear = decoder.layers * computed * project + (decoder.layers - 1) * computed * finish + kept * finish
    pairs = (decoder.layers - 1) * (tokens * (tokens + 1) - cached_tokens * (cached_tokens + 1)) // 2 + kept * tokens
    return Flops(2 * linear, _attention_flops(pairs, _query_width(decoder)))


def step_flops(model: ModelSpec, tokens: int, rows: int) -> Flops:
    """Return the operations of graph `latent_step` for one prompt.

    `rows` is the number of tokens: the latent token and, in the last step, the suffix. As in the graph, all experts are
    computed and attention reads all slots of the rollout's cache.
    """
    decoder, transition = model.decoder, model.transition
    experts = (transition.experts + 1) * 2 * decoder.hidden * transition.expert_width
    router = 2 * decoder.hidden * transition.experts
    layers = decoder.layers * rows * (_projection_values(decoder) + _finish_values(decoder))
    pairs = decoder.layers * rows * (tokens + model.rollout.latent_steps + rows)
    return Flops(2 * (experts + router + layers), _attention_flops(pairs, _query_width(decoder)))


def _attention_flops(pairs: int, width: int) -> int:
    """Return the operations of attention: per query and visible key, one dot product for the score and one with the value."""
    return 4 * pairs * width


def _query_width(decoder: DecoderSpec) -> int:
    return decoder.query_heads * decoder.head_dim


def _projection_values(decoder: DecoderSpec) -> int:
    """Return the number of weights in one layer's query, key and value projections."""
    return decoder.hidden * (decoder.query_heads + 2 * decoder.kv_heads) * decoder.head_dim


def _finish_values(decoder: DecoderSpec) -> int:
    """Return the number of weights in one layer's output projection and MLP."""
    return decoder.hidden * (_query_width(decoder) + 3 * decoder.mlp_width)


@dataclass(frozen=True)
class WeightReads:
    """Bytes that every run reads as a whole, and bytes per row of the tables from which a run reads only some rows."""

    whole: int
    row: int

    def bytes_of(self, rows: int) -> int:
        return self.whole + rows * self.row


def weight_reads(bundle: Bundle, graph: GraphName) -> WeightReads:
    """Return the bytes of weights that a run of a graph reads.

    Engines store their weights in a format of their own, so their bytes are computed from the model's dimensions and precision
    (memory_plan.py).
    """
    manifest = bundle.manifest
    if manifest.engines is not None:
        return WeightReads(bytes_read_by_pass(manifest.model, manifest.precision, graph), 0)
    import onnx_ir as ir

    # ONNX Runtime's CPU provider converts float16 to float32 once, when it loads a graph.
    is_widened = not is_on_gpu(manifest)
    whole = row = 0
    with warnings.catch_warnings():  # onnx warns about the key for prepacked weights
        warnings.filterwarnings("ignore", "Ignoring unknown external data key", UserWarning)
        model = ir.load(bundle.checked_graph_file(graph))
    for value in model.graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        size = tensor.nbytes * (2 if is_widened and tensor.dtype == ir.DataType.FLOAT16 else 1)
        if _is_only_read_by("Gather", value):
            row += size // tensor.shape.numpy()[0]
        elif not _is_only_read_by("Slice", value):  # a cached start is not a weight
            whole += size
    return WeightReads(whole, row)


def _is_only_read_by(operator: str, value: object) -> bool:
    """Return True if only an operator of this type reads a tensor.

    Gather reads rows of the token table and of the step table. Slice reads the matching part of a cached start.
    """
    uses = list(value.uses())  # type: ignore[attr-defined]
    return bool(uses) and all(use.node.op_type == operator and use.idx == 0 for use in uses)


Bound = Literal["products", "memory"]


class StageLimit(msgspec.Struct, frozen=True):
    """One stage of one input. `bound_by` is the limit that applies; None if the machine's limits were not measured.

    `share_of_limit` is the limit divided by the measured time; 1 means that the stage runs at the hardware's limit.
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
    """The operations and reads of a stage."""

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
    """Return the operations and reads of every stage of one input. A text-only input has no stage `vision`."""
    model, tokens = manifest.model, size.prompt_tokens
    cached = _cached_tokens(manifest, size)
    work = {"prefill": Work("prefill", prefill_flops(model, tokens, cached), reads["prefill"].bytes_of(tokens - cached))}
    if size.vision:
        counts = [vision_flops(model, frames, patches) for frames, patches in size.vision]
        weights = len(size.vision) * reads["vision_encoder"].bytes_of(0)  # each image or video is one run
        work["vision"] = Work("vision_encoder", sum(counts, Flops(0, 0)), weights)
    cache = tokens * _cache_bytes_of_token(manifest)
    for stage, rows in (("latent step", 1), ("readout", 1 + suffix_tokens)):
        work[stage] = Work("latent_step", step_flops(model, tokens, rows), reads["latent_step"].bytes_of(1) + cache)
    return work


def limit_seconds(manifest: Manifest, machine: MachineLimits, work: Work) -> tuple[float, Bound] | None:
    """Return the minimum time of a stage, and which limit determines it. None: one of the limits was not measured."""
    linear = machine.flops_per_s.get(linear_matmuls(manifest, work.graph))
    attention = machine.flops_per_s.get(attention_matmuls(manifest, work.graph))
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
    """Return the number of prompt tokens that prefill does not compute."""
    start = manifest.cached_start
    if start is None:
        return 0
    return start.any_prompt_tokens if size.vision else start.text_tokens


def _cache_bytes_of_token(manifest: Manifest) -> int:
    """Return the bytes of one prompt token's keys and values in all layers, which every step reads."""
    dtype = next(tensor.dtype for tensor in manifest.graphs["latent_step"].inputs if tensor.name == "rollout_keys")
    decoder = manifest.model.decoder
    return 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * DTYPE_BYTES[dtype]
