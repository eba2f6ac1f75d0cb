"""Checkpoint to portable ONNX bundle: trace, stream the weights, capture the reference, write the manifest."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from .bundle import (
    CONSTANTS,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    CheckpointOrigin,
    Manifest,
    Modalities,
    Quantisation,
    graphs_of,
    new_bundle,
    open_written,
    write_manifest,
)
from .checkpoint import Checkpoint, origin_of, tokenizer_json_from_checkpoint
from .graphs.latent_step import LatentStep
from .graphs.layers import keep_in_float32
from .graphs.prefill import Prefill
from .graphs.trace import trace_graph
from .graphs.vision_encoder import VisionEncoder
from .graphs.weights import ReadParameter, bind_weights, parameters_of, read_parameter, write_weights
from .inputs import Item
from .progress import Report, detail_of
from .quantise.quantisation_plan import QuantisationPlan, QuantisedParameters
from .quantise.quantise_graph import quantise_graph
from .reference import Reference, ReferenceProcessor
from .selftest import capture_selftest
from .spec import COMPUTE_DTYPE, INTEGER_PRECISIONS, GraphName, ModelSpec, Precision, graph_specs

_VERSIONED = ("plume-export", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "numpy")
# Gets a function that writes the graphs of a plan (None: in floats); what was written last stays. Returns what the manifest
# says of it.
Quantise = Callable[[Callable[[QuantisationPlan | None], Bundle]], Quantisation]


def export_bundle(
    checkpoint: Checkpoint,
    output: Path,
    *,
    precision: Precision,
    modalities: Modalities = "all",
    selftest_inputs: Path | None = None,
    quantise: Quantise | None = None,
    traced_in: Precision | None = None,
    float32_layers: Mapping[str, float] = MappingProxyType({}),
    report: Report = lambda _: None,
) -> Bundle:
    """Write the portable ONNX bundle of a checkpoint and return it, verified.

    Memory stays bounded: graphs are traced without data, tensors streamed one at a time, and the reference stages of
    `selftest_inputs` (a JSON lines file; None leaves the self-test out) computed layer by layer. For an integer precision,
    `quantise` gets a function that writes the graphs as a plan has them, and calls it as often as it likes. `traced_in`
    is the precision of the graphs that it starts from; None: the floats of `precision`. `float32_layers` are layers that
    float16 cannot hold, with their largest magnitude.
    """
    assert (quantise is not None) == (precision in INTEGER_PRECISIONS)
    traced_in = traced_in or precision
    model = checkpoint.model
    names = graphs_of(modalities)
    manifest = Manifest(
        backend="onnx",
        precision=precision,
        modalities=modalities,
        model=model,
        graphs={name: graph_specs(model, traced_in)[name] for name in names},
        checkpoint=CheckpointOrigin(name=checkpoint.name),  # its hashes are known when its tensors were read
        versions={package: version(package) for package in _VERSIONED},
        float32_layers=dict(float32_layers),
    )
    tokenizer_json = tokenizer_json_from_checkpoint(checkpoint.directory, model.decoder.vocab)
    with new_bundle(output, report) as directory:
        (directory / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        report("capturing reference stages")
        _write_reference_files(directory, checkpoint, selftest_inputs, modalities)
        report(f"tracing {len(names)} graphs")
        traced = {}
        for name in names:
            detail_of(report)(f"tracing {name}")
            traced[name] = _trace(name, model, traced_in, float32_layers)
        write = partial(write_graphs, Bundle(directory, manifest), checkpoint, traced, report=report)
        if quantise is None:
            report("writing weights")
            write(None)
        else:
            manifest = msgspec.structs.replace(manifest, quantisation=quantise(write))
        detail_of(report)("hashing")
        write_manifest(directory, msgspec.structs.replace(manifest, checkpoint=origin_of(checkpoint)))
    return open_written(output)


def write_graphs(
    bundle: Bundle,
    checkpoint: Checkpoint,
    traced: Mapping[GraphName, ir.Model],
    plan: QuantisationPlan | None,
    *,
    report: Report = lambda _: None,
) -> Bundle:
    """Write the graphs and the weight file into a bundle, over those that are there; the traced graphs stay as they are."""
    detail_of(report)("writing the graphs' weights")
    graphs = {name: graph.clone() for name, graph in traced.items()}
    read: ReadParameter = partial(read_parameter, tensors=checkpoint.tensors, model=checkpoint.model)
    if plan is not None:
        for name in plan.schemes:
            quantise_graph(graphs[name], plan.schemes[name], plan.activation_scales[name])
        read = QuantisedParameters(checkpoint.model, read, plan)
    ranges = write_weights(bundle.file(WEIGHTS), parameters_of(graphs.values()), read)
    for name, graph in graphs.items():
        bind_weights(graph, WEIGHTS, ranges)
        ir.save(graph, bundle.graph_file(name))
    return bundle


def _trace(name: GraphName, model: ModelSpec, precision: Precision, float32_layers: Collection[str]) -> ir.Model:
    dtype = getattr(torch, COMPUTE_DTYPE[precision])
    modules = {
        "vision_encoder": lambda: VisionEncoder(model.vision, model.decoder.hidden, dtype),
        "prefill": lambda: Prefill(model.decoder, dtype),
        "latent_step": lambda: LatentStep(model, dtype),
    }

    def build_module() -> nn.Module:
        module = modules[name]()
        keep_in_float32(module, float32_layers)
        return module

    spec = graph_specs(model, precision)[name]
    return trace_graph(build_module, spec, patches_multiple=model.vision.merged_patches)


def _write_reference_files(
    directory: Path, checkpoint: Checkpoint, selftest_inputs: Path | None, modalities: Modalities
) -> None:
    """Write what only the reference can compute: the constant embeddings and the self-test's stages."""
    model = checkpoint.model
    reference = Reference(checkpoint.directory, checkpoint.tensors, model, dtype=torch.float32, resident=False)
    processor = ReferenceProcessor(checkpoint.directory, model)
    blank = processor(Item(text="blank"))
    np.savez(
        directory / CONSTANTS,
        blank_visual_embeddings=reference.visual_embeddings(blank).numpy(),
        suffix_embeddings=reference.suffix_embeddings(blank.suffix_ids).numpy(),
    )
    if selftest_inputs is not None:
        capture_selftest(directory, selftest_inputs, processor, reference, modalities)
