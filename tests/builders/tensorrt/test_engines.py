"""Engines of both small models in float16 and bfloat16: what they are, against the contract in the manifest."""

from pathlib import Path

import pytest

from plume_export.builders.tensorrt.audit import audit_engine
from plume_export.builders.tensorrt.engine_layers import layers_of_engine
from plume_export.builders.tensorrt.network import check_inputs_and_outputs, check_layer_dtypes, network_from_onnx
from plume_export.bundle import open_bundle
from plume_export.machine.tensorrt_log import new_log
from plume_export.machine.tensorrt_variant import import_variant
from plume_export.pipeline import compile_bundle
from plume_export.recipe import read_target
from plume_export.spec import GRAPH_NAMES, graph_specs

from .conftest import Built, write_recipe

pytestmark = pytest.mark.slow


def test_all_three_graphs_become_engines(built: Built) -> None:
    manifest, source = built.bundle.manifest, built.source.manifest
    assert manifest.backend == "tensorrt-rtx"
    assert manifest.precision == source.precision
    assert manifest.limits == built.engines.recipe.limits
    assert manifest.model.preprocess.max_pixels == 256 * 784
    assert built.engines.source_sha256 == built.source.sha256
    assert built.engines.flavour_version == import_variant("tensorrt-rtx").version
    assert tuple(built.engines.graphs) == GRAPH_NAMES
    for name, entry in built.engines.graphs.items():
        assert built.bundle.graph_file(name).stat().st_size == entry.bytes == manifest.files[f"{name}.engine"].bytes
    assert "weights.safetensors" not in manifest.files
    open_bundle(built.bundle.path)  # every hash


def test_inputs_and_outputs_are_those_of_the_manifest(built: Built) -> None:
    """Names, dtypes and shapes of the network as TensorRT parses it; each tensor looked at, not only checked."""
    manifest = built.bundle.manifest
    assert manifest.graphs == graph_specs(manifest.model, manifest.precision)
    variant = import_variant("tensorrt-rtx")
    dtypes = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int64": "INT64"}
    for name, spec in manifest.graphs.items():
        log = new_log(variant)
        network, _parser = network_from_onnx(variant, variant.trt.Builder(log), log, built.source.graph_file(name))
        check_inputs_and_outputs(variant, network, spec)
        found = [network.get_input(index) for index in range(network.num_inputs)]
        found += [network.get_output(index) for index in range(network.num_outputs)]
        assert [tensor.name for tensor in found] == [tensor.name for tensor in (*spec.inputs, *spec.outputs)]
        for tensor, expected in zip(found, (*spec.inputs, *spec.outputs), strict=True):
            assert tensor.dtype == getattr(variant.trt.DataType, dtypes[expected.dtype]), expected.name
            assert list(tensor.shape) == [axis if isinstance(axis, int) else -1 for axis in expected.axes], expected.name
        assert check_layer_dtypes(variant, network, manifest.precision) >= 8


def test_the_profile_is_the_recipes_and_names_every_dynamic_input(built: Built) -> None:
    vision, decoder = built.bundle.manifest.model.vision, built.bundle.manifest.model.decoder
    profiles = {name: entry.profile for name, entry in built.engines.graphs.items()}
    for name, spec in built.bundle.manifest.graphs.items():
        dynamic = {tensor.name: tensor for tensor in spec.inputs if any(isinstance(axis, str) for axis in tensor.axes)}
        assert profiles[name].keys() == dynamic.keys()
        for tensor_name, shapes in profiles[name].items():
            for axis, *sizes in zip(dynamic[tensor_name].axes, *shapes, strict=True):
                assert sizes == sorted(sizes)
                assert isinstance(axis, str) or set(sizes) == {axis}
    values, cached = vision.patch_values, (decoder.kv_heads, 1024, decoder.head_dim)
    assert profiles["vision_encoder"]["patches"] == ((1, 16, values), (1, 256, values), (1, 1024, values))
    assert profiles["prefill"]["input_ids"] == ((1, 16), (1, 256), (2, 1024))
    assert profiles["prefill"]["visual_embeddings"][2] == (2 * 1024, decoder.hidden)
    assert profiles["latent_step"]["suffix_embeddings"][0] == (0, decoder.hidden)
    assert profiles["latent_step"]["prefix_keys_0"][2] == (2, *cached)


def test_weights_are_held_once(built: Built) -> None:
    """By the builder's own figure, against the bytes of the graph's initializers as onnx reads them."""
    import onnx

    for name, entry in built.engines.graphs.items():
        graph = onnx.load(built.source.graph_file(name), load_external_data=False)
        stored = 0
        for initializer in graph.graph.initializer:
            lengths = [int(item.value) for item in initializer.external_data if item.key == "length"]
            stored += lengths[0] if lengths else len(initializer.raw_data)
        assert entry.initializer_bytes == stored
        assert entry.weights_bytes <= 1.03 * stored + 4096


def test_the_audit_finds_nothing(built: Built) -> None:
    for entry in built.engines.graphs.values():
        audit = audit_engine(entry)
        assert audit.findings == ()
        assert audit.copied_weight_bytes == 0
        assert audit.weights_over_initializers == pytest.approx(1, abs=0.002)
        assert audit.code_bytes_of_layer == pytest.approx(80_000, rel=0.3)


def test_bytes_that_two_engines_hold_are_the_decoders(built: Built) -> None:
    """All of the decoder but its embedding, which latent_step does not have."""
    entries = built.engines.graphs
    both = entries["prefill"].initializer_bytes + entries["latent_step"].initializer_bytes
    weight_file = built.source.manifest.files["weights.safetensors"].bytes
    alone = weight_file - entries["vision_encoder"].initializer_bytes
    assert built.engines.duplicate_bytes == pytest.approx(both - alone, rel=0.02)


def test_layers_are_listed_with_their_precision(built: Built) -> None:
    words = {"fp16": ("Half", "BFloat16"), "bf16": ("BFloat16", "Half")}
    compute, other = words[built.bundle.manifest.precision]
    for name, entry in built.engines.graphs.items():
        layers = layers_of_engine(built.bundle, name)
        assert len(layers) == entry.layers
        dtypes = [tensor.dtype for layer in layers for tensor in layer.outputs]
        assert other not in dtypes
        products = [layer for layer in layers if layer.kind in ("gemm", "runtime_fusion")]
        assert len(products) >= 8
        others = [layer for layer in products if compute not in {tensor.dtype for tensor in layer.inputs}]
        assert len(others) == (1 if name == "latent_step" else 0)  # the router's


@pytest.mark.parametrize("name", ["tiny_engines", "plume_tiny_engines"])
def test_activations_grow_linearly(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Attention is fused: four times the tokens and patches take at most 4.4 times the memory."""
    small: Built = request.getfixturevalue(name)
    recipe = write_recipe(tmp_path, tokens=4096, image=1024)
    large = Built(small.source, compile_bundle(small.source, tmp_path / "large", read_target(recipe)))
    for graph, entry in large.engines.graphs.items():
        assert entry.activation_bytes <= 4.4 * small.engines.graphs[graph].activation_bytes, graph
