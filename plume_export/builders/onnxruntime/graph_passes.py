"""The passes that turn an exported graph into a graph for ONNX Runtime, in their order.

They have the form of `onnx_ir.passes`. Two more steps follow once per bundle. `cached_start` has a pass too, which needs keys
and values that the fused graph computes. `shared_prepacking` is no pass: onnx_ir drops the entries of external data that it
writes.
"""

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...bundle import Bundle, ProductWeights, copy_file
from ...spec import GraphName, ModelSpec
from .compiled_weights import CompiledWeights
from .dynamic_quantisation import DynamicQuantisation
from .fused_attention import CausalAttention, VisionAttention
from .fused_norms import RMSNorm
from .fused_rotary import RotaryEmbedding
from .fusion import Fuse
from .source_graph import expecting_exported, read_source_graph
from .unsigned_weights import UnsignedWeights


def compile_graph(
    bundle: Bundle, name: GraphName, directory: Path, integers: ProductWeights | None, weights: CompiledWeights
) -> None:
    """Write a graph of a portable bundle for ONNX Runtime. `integers` is the dtype of its weights in integer matmuls, if any.

    Raises BundleError if it is not a graph that an export writes.
    """
    file, source = directory / f"{name}.onnx", bundle.graph_file(name)
    # The graph is read from its new directory, so that weights are found there after copying and moving alike.
    copy_file(bundle.checked_graph_file(name), file)
    graph = read_source_graph(file, bundle.manifest.graphs[name], source)
    passes = [*integer_passes(integers, weights), *fusion_passes(name, bundle.manifest.model), RemoveUnusedNodesPass()]
    with expecting_exported(source):
        ir.save(ir.passes.Sequential(*passes)(graph).model, file)


def integer_passes(integers: ProductWeights | None, weights: CompiledWeights) -> list[ir.passes.PassBase]:
    """Return the passes for integer matmuls on a CPU, with int8 or uint8 weights."""
    passes: dict[ProductWeights | None, list[ir.passes.PassBase]] = {
        None: [],
        "int8": [DynamicQuantisation(weights)],
        "uint8": [DynamicQuantisation(weights), UnsignedWeights(weights)],
    }
    return passes[integers]


def fusion_passes(name: GraphName, model: ModelSpec) -> list[ir.passes.PassBase]:
    """Return the passes that fuse norms, rotary embeddings and attention, except where attention has few queries."""
    vision, decoder = model.vision, model.decoder
    norms = Fuse("SimplifiedLayerNormalization", RMSNorm.rule(), 2 * decoder.layers + 1)
    rotary = Fuse("RotaryEmbedding", RotaryEmbedding.rule(), 2 * decoder.layers)
    passes: dict[GraphName, list[ir.passes.PassBase]] = {
        "vision_encoder": [
            Fuse("MultiHeadAttention", VisionAttention.rule(vision), vision.depth),
            Fuse("RotaryEmbedding", RotaryEmbedding.rule(), 2 * vision.depth),
        ],
        "prefill": [Fuse("GroupQueryAttention", CausalAttention.rule(decoder), decoder.layers - 1), norms, rotary],
        "latent_step": [norms, rotary],
    }
    return passes[name]
