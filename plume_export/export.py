"""Checkpoint to portable ONNX bundle: trace, stream the weights, capture the reference, write the manifest."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from .bundle import CONSTANTS, TOKENIZER, WEIGHTS, Bundle, Manifest, Modalities, new_bundle, open_bundle, write_manifest
from .checkpoint import Checkpoint, tokenizer_json_from_checkpoint
from .graphs.latent_step import LatentStep
from .graphs.prefill import Prefill
from .graphs.trace import trace_graph
from .graphs.vision_encoder import VisionEncoder
from .graphs.weights import ReadParameter, bind_weights, parameters_of, read_parameter, write_weights
from .precision.plan import QuantisationPlan, QuantisedParameters
from .precision.quantise_graph import quantise_graph
from .preprocess import Item
from .reference import Reference, ReferenceProcessor
from .selftest import capture_selftest
from .spec import COMPUTE_DTYPE, GRAPH_NAMES, INTEGER_PRECISIONS, GraphName, ModelSpec, Precision, graph_specs

_VERSIONED = ("plume-export", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "numpy")
# Tells what is being done now.
Report = Callable[[str], None]


def export_bundle(
    checkpoint: Checkpoint,
    output: Path,
    *,
    precision: Precision,
    modalities: Modalities = "all",
    selftest_inputs: Path | None = None,
    plan: QuantisationPlan | None = None,
    report: Report = lambda _: None,
) -> Bundle:
    """Write the portable ONNX bundle of a checkpoint and return it, verified.

    Memory stays bounded: graphs are traced without data, tensors streamed one at a time, and the reference stages of
    `selftest_inputs` (a JSON lines file; None leaves the self-test out) computed layer by layer. An integer precision takes
    a plan of what is quantised and how.
    """
    assert (plan is not None) == (precision in INTEGER_PRECISIONS)
    model = checkpoint.model
    specs = graph_specs(model, precision)
    names: list[GraphName] = [name for name in GRAPH_NAMES if modalities == "all" or name != "vision_encoder"]
    tokenizer_json = tokenizer_json_from_checkpoint(checkpoint.directory, model.decoder.vocab)
    with new_bundle(output) as directory:
        (directory / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        graphs = {}
        for name in names:
            report(f"tracing {name}")
            graphs[name] = _trace(name, model, precision)
        report("writing weights")
        read: ReadParameter = partial(read_parameter, tensors=checkpoint.tensors, model=model)
        if plan is not None:
            for name, graph in graphs.items():
                quantise_graph(graph, plan.schemes[name], plan.activation_scales[name])
            read = QuantisedParameters(model, read, plan)
        ranges = write_weights(directory / WEIGHTS, parameters_of(graphs.values()), read)
        for name, graph in graphs.items():
            bind_weights(graph, WEIGHTS, ranges)
            ir.save(graph, directory / f"{name}.onnx")
        del graphs
        report("capturing reference stages")
        _write_reference_files(directory, checkpoint, selftest_inputs, modalities)
        report("hashing")
        manifest = Manifest(
            backend="onnx",
            precision=precision,
            modalities=modalities,
            model=model,
            graphs={name: specs[name] for name in names},
            checkpoint=checkpoint.name,
            versions={package: version(package) for package in _VERSIONED},
        )
        write_manifest(directory, manifest)
    return open_bundle(output, verify_hashes=False)


def _trace(name: GraphName, model: ModelSpec, precision: Precision) -> ir.Model:
    dtype = getattr(torch, COMPUTE_DTYPE[precision])
    modules = {
        "vision_encoder": lambda: VisionEncoder(model.vision, model.decoder.hidden, dtype),
        "prefill": lambda: Prefill(model.decoder, dtype),
        "latent_step": lambda: LatentStep(model, dtype),
    }
    spec = graph_specs(model, precision)[name]
    return trace_graph(modules[name], spec, patches_multiple=model.vision.merged_patches)


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
