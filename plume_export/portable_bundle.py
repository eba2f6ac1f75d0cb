"""Checkpoint to portable ONNX bundle: trace graphs, stream weights, save the reference's outputs, write the manifest."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
    write_manifest,
)
from .checkpoint import Checkpoint, origin_of, tokenizer_json_from_checkpoint
from .graphs.latent_step import LatentStep
from .graphs.layers import keep_in_float32
from .graphs.prefill import Prefill
from .graphs.trace import trace_graph
from .graphs.vision_encoder import VisionEncoder
from .graphs.weights import CheckpointParameters, ReadParameter, bind_weights, parameters_of, write_weights
from .inputs import Item
from .progress import Report, detail_of
from .quantise.quantisation_plan import QuantisationPlan, QuantisedParameters
from .quantise.quantise_graph import QuantiseGraph
from .reference import Reference, ReferenceProcessor
from .selftest import capture_selftest
from .spec import COMPUTE_DTYPE, GraphName, ModelSpec, Precision, graph_specs

_VERSIONED = ("plume-export", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass
class DraftBundle:
    """A portable bundle before its manifest is written: traced graphs whose weights can be written any number of times.

    `quantisation` becomes part of the manifest. It must be set before the draft is finished.
    """

    directory: Path
    manifest: Manifest
    checkpoint: Checkpoint
    traced: Mapping[GraphName, ir.Model]
    report: Report = lambda _: None
    quantisation: Quantisation | None = None

    def write_graphs(self, plan: QuantisationPlan | None = None) -> Bundle:
        """Write the graphs and the weight file, quantised if there is a plan. Replaces files of an earlier call.

        The traced graphs are not changed. Returns a bundle that can run, but whose files are not hashed yet.
        """
        detail_of(self.report)("writing the graphs' weights")
        bundle = Bundle(self.directory, self.manifest)
        graphs = {name: graph.clone() for name, graph in self.traced.items()}
        read: ReadParameter = CheckpointParameters(self.checkpoint.tensors, self.checkpoint.model)
        if plan is not None:
            for name in plan.schemes:
                QuantiseGraph(plan.schemes[name], plan.activation_scales[name])(graphs[name])
            read = QuantisedParameters(self.checkpoint.model, read, plan)
        ranges = write_weights(bundle.file(WEIGHTS), parameters_of(graphs.values()), read)
        for name, graph in graphs.items():
            bind_weights(graph, WEIGHTS, ranges)
            ir.save(graph, bundle.graph_file(name))
        return bundle


@contextmanager
def draft_bundle(
    checkpoint: Checkpoint,
    output: Path,
    *,
    precision: Precision,
    modalities: Modalities = "all",
    selftest_inputs: Path | None = None,
    traced_in: Precision | None = None,
    float32_layers: Mapping[str, float] = MappingProxyType({}),
    report: Report = lambda _: None,
) -> Iterator[DraftBundle]:
    """Yield a draft in which only the graphs and the weight file are missing. At the end, hash all files and put the bundle at
    `output`.

    Memory stays bounded: graphs are traced without data, tensors are streamed one at a time, and the reference runs layer by
    layer on `selftest_inputs` (a JSON lines file; None: no self-test). Graphs are traced in the precision `traced_in`, by
    default `precision`. `float32_layers` maps layers that would overflow float16 to their largest magnitude.
    """
    traced_in = traced_in or precision
    model = checkpoint.model
    names = graphs_of(modalities)
    manifest = Manifest(
        backend="onnx",
        precision=precision,
        modalities=modalities,
        model=model,
        graphs={name: graph_specs(model, traced_in)[name] for name in names},
        checkpoint=CheckpointOrigin(name=checkpoint.name),  # hashes are added when all tensors have been read
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
            traced[name] = trace_model_graph(name, model, traced_in, float32_layers)
        draft = DraftBundle(directory, manifest, checkpoint, traced, report)
        yield draft
        detail_of(report)("hashing")
        complete = msgspec.structs.replace(manifest, quantisation=draft.quantisation, checkpoint=origin_of(checkpoint))
        write_manifest(directory, complete)


def trace_model_graph(
    name: GraphName, model: ModelSpec, precision: Precision, float32_layers: Collection[str] = ()
) -> ir.Model:
    """Return one graph of a model. Its parameters have no data yet. `float32_layers` are kept in float32."""
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
    """Write what only the PyTorch reference can compute: the constant embeddings and the self-test's expected outputs."""
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
