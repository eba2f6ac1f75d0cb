"""An int8 bundle for the CPU: integers in the products, float32 elsewhere, near the float32 embeddings."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from plume_export import Embedder
from plume_export.build import ExportOptions, ModelOptions, export_checkpoint, open_checkpoint
from plume_export.builders.integer_products import is_dequantised
from plume_export.builders.onnxruntime import check_onnxruntime_precision, compile_for_onnxruntime
from plume_export.bundle import WEIGHTS, Bundle
from plume_export.embed_file import sources_from_file
from plume_export.errors import PlumeExportError
from plume_export.precision.calibrate import calibrate
from plume_export.precision.options import QuantiseOptions
from plume_export.precision.ranges import write_ranges
from plume_export.runtime import onnxruntime_cpu
from plume_export.samples import PLUME_TINY, sample_inputs_file
from plume_export.spec import GRAPH_NAMES, GraphName, IntegerPrecision


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """plume-tiny in int8, calibrated on the few inputs of the self-test."""
    directory = tmp_path_factory.mktemp("dynamic")
    checkpoint = open_checkpoint(PLUME_TINY, ModelOptions())
    write_ranges(calibrate(checkpoint, sample_inputs_file()), directory / "ranges.npz")
    options = ExportOptions("int8", quantise=QuantiseOptions(ranges_file=directory / "ranges.npz", min_cosine=0))
    return export_checkpoint(checkpoint, directory / "int8", options, lambda _: None)


@pytest.fixture(scope="module")
def compiled(portable: Bundle) -> Bundle:
    return compile_for_onnxruntime(portable, portable.path.with_name("int8-cpu"))


@pytest.fixture(scope="module")
def graphs(compiled: Bundle) -> dict[GraphName, ir.Model]:
    return {name: ir.load(compiled.graph_file(name)) for name in GRAPH_NAMES}


def test_every_quantised_product_is_of_integers(portable: Bundle, graphs: dict[GraphName, ir.Model]) -> None:
    experts = portable.manifest.model.transition.experts + 1  # one is shared by all
    for name, graph in graphs.items():
        weights = [node.inputs[1].producer() for node in ir.load(portable.graph_file(name)).graph if node.op_type == "MatMul"]
        integers = [weight for weight in weights if weight is not None and weight.op_type == "DequantizeLinear"]
        after = Counter(node.op_type for node in graph.graph)
        assert not any(is_dequantised(output) for node in graph.graph for output in node.outputs)
        products = len(integers) + (2 * experts if name == "latent_step" else 0)
        assert after["MatMulIntegerToFloat"] == products


def test_inputs_that_the_plan_left_in_16_bit_are_in_two_parts(portable: Bundle, graphs: dict[GraphName, ir.Model]) -> None:
    def is_in_two_parts(product: ir.Node) -> bool:
        rows = product.inputs[0].producer() if product.inputs[0] is not None else None
        return rows is not None and rows.op_type == "Concat"

    quantisation = portable.manifest.quantisation
    assert quantisation is not None
    assert quantisation.weight_only
    for name in ("prefill", "latent_step"):
        products = [node for node in graphs[name].graph if node.op_type == "MatMulIntegerToFloat" and is_in_two_parts(node)]
        names = {str(product.inputs[1].name).removesuffix(".weight") for product in products if product.inputs[1] is not None}
        assert names == {layer for layer in quantisation.weight_only if layer.startswith("decoder.")}


def test_nothing_is_16_bit(compiled: Bundle, graphs: dict[GraphName, ir.Model]) -> None:
    for name, graph in graphs.items():
        values = [*graph.graph.inputs, *graph.graph.outputs, *graph.graph.initializers.values()]
        assert ir.DataType.FLOAT16 not in {value.dtype for value in values}
        casts = [node.attributes["to"].value for node in graph.graph if node.op_type == "Cast"]
        assert ir.DataType.FLOAT16 not in casts
        spec = compiled.manifest.graphs[name]
        assert "float16" not in {tensor.dtype for tensor in (*spec.inputs, *spec.outputs)}


def test_embedding_table_is_gathered_in_int8(graphs: dict[GraphName, ir.Model]) -> None:
    table = graphs["prefill"].graph.initializers["embed_tokens.weight"]
    assert table.dtype == ir.DataType.INT8
    assert [node.op_type for node in table.consumers()] == ["Gather"]


def test_integers_stay_in_the_weight_file(portable: Bundle, compiled: Bundle, graphs: dict[GraphName, ir.Model]) -> None:
    before, after = load_file(portable.file(WEIGHTS)), load_file(compiled.file(WEIGHTS))
    assert all((after[name] == weight).all() for name, weight in before.items())
    for graph in graphs.values():
        layers = [value for name, value in graph.graph.initializers.items() if name.endswith("_proj.weight")]
        for value in layers:
            assert isinstance(value.const_value, ir.ExternalTensor)
            assert value.const_value.location == WEIGHTS


def test_embeddings_are_near_float32(compiled: Bundle, plume_tiny_fp16: Bundle, tmp_path: Path) -> None:
    items = [source.read() for source in sources_from_file(sample_inputs_file())]
    # float16 in the file alone: ONNX Runtime's CPU provider computes it in float32.
    with Embedder(compile_for_onnxruntime(plume_tiny_fp16, tmp_path / "fp16-cpu")) as embedder:
        expected = embedder.embed(items)
    with Embedder(compiled) as embedder:
        actual = embedder.embed(items)
        alone = embedder.embed(items, batch_size=1)
    cosines = (expected * actual).sum(-1)
    assert cosines.mean() >= 0.999  # 0.9999
    assert cosines.min() >= 0.997
    # Rows have scales of their own: the rest of a batch moves nothing across more than a rounding here and there.
    np.testing.assert_allclose((actual * alone).sum(-1), 1, atol=1e-4)


def test_kernels_without_vnni_compute_the_same(compiled: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with Embedder(compiled) as embedder:
        here = embedder.embed(["three large cyan stars"])
    monkeypatch.setattr(onnxruntime_cpu, "_has_exact_products", lambda: False)
    with Embedder(compiled) as embedder:
        np.testing.assert_allclose(embedder.embed(["three large cyan stars"]), here, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8-weight", "int4-weight"])
def test_integer_weights_alone_are_refused(precision: IntegerPrecision) -> None:
    with pytest.raises(PlumeExportError, match="widen whole weights") as error:
        check_onnxruntime_precision("onnxruntime-cpu", precision)
    assert "--precision int8" in str(error.value.fix)
