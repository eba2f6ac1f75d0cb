"""Outliers move without changing the function."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from plume_export import Embedder
from plume_export.bundle import Bundle
from plume_export.inputs import sources_from_file
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.quantise.folds import folds_of, linear_layers
from plume_export.quantise.quantisation_plan import QuantisationPlan
from plume_export.samples import sample_inputs_file
from plume_export.spec import GRAPH_NAMES
from tests.quantise.bench import Bench, without_weights


def test_a_model_with_every_migration_computes_the_same(tiny_checkpoint: Path, tiny_fp32: Bundle, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    random = np.random.default_rng(0)
    migrations = {
        layer: fold.tied(np.exp2(random.uniform(-3, 3, len(fold.source))).astype(np.float32))
        for layer, fold in folds_of(checkpoint.model).items()
    }
    plan = QuantisationPlan({}, {}, migrations, {}, {})
    folded = Bench(tiny_fp32, tmp_path, None).write(checkpoint, plan)
    items = [source.read() for source in sources_from_file(sample_inputs_file())]
    with Embedder(tiny_fp32) as embedder, Embedder(folded) as folded_embedder:
        assert np.abs(embedder.embed(items) - folded_embedder.embed(items)).max() <= 1e-4
    for name in ("decoder.layers.0.qkv_proj.weight", "visual.blocks.0.norm1.weight"):
        assert (stored(tiny_fp32, name) != stored(folded, name)).mean() > 0.9


def test_every_layer_is_a_product_of_a_graph(tiny_fp32: Bundle) -> None:
    """The names of layers and folds are those of the graphs."""
    checkpoint_layers = linear_layers(tiny_fp32.manifest.model)
    graphs = [without_weights(ir.load(tiny_fp32.graph_file(name))) for name in GRAPH_NAMES]
    products = {node.inputs[1].name for graph in graphs for node in graph.graph if node.op_type == "MatMul"}
    assert {f"{layer}.weight" for layer in checkpoint_layers} <= products
    left_out = {name for name in products if name is not None and name.endswith(".weight")} - {
        f"{layer}.weight" for layer in checkpoint_layers
    }
    assert left_out == {"visual.patch_embed.weight", "transition.router.weight"}
    assert set(folds_of(tiny_fp32.manifest.model)) <= set(checkpoint_layers)


def stored(bundle: Bundle, name: str) -> np.ndarray:
    for graph in ("prefill", "vision_encoder"):
        initializers = ir.load(bundle.graph_file(graph)).graph.initializers
        if name in initializers:
            return initializers[name].const_value.numpy()
    raise AssertionError(name)
