"""An int8 bundle for the CPU: integers in the products, float32 elsewhere, near the float32 embeddings."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from plume_export import Embedder
from plume_export.builders.onnxruntime import onnxruntime_bundle as builder
from plume_export.builders.onnxruntime.compiled_weights import INLINE_BYTES
from plume_export.builders.onnxruntime.onnxruntime_bundle import check_onnxruntime_precision, compile_for_onnxruntime
from plume_export.bundle import WEIGHTS, Bundle
from plume_export.errors import PlumeExportError
from plume_export.inputs import sources_from_file
from plume_export.machine.cores import has_exact_int8_sums
from plume_export.runtime import onnxruntime_cpu
from plume_export.samples import sample_inputs_file
from plume_export.spec import GRAPH_NAMES, GraphName, IntegerPrecision


@pytest.fixture(scope="module", params=["int8", "uint8"])
def compiled(plume_tiny_int8: Bundle, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As a processor compiles it that sums uint8 by int8 exactly, and as one that wants uint8."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(builder, "has_exact_int8_sums", lambda: request.param == "int8")
        return compile_for_onnxruntime(plume_tiny_int8, tmp_path_factory.mktemp("dynamic") / f"{request.param}-cpu")


def is_unsigned(bundle: Bundle) -> bool:
    return bundle.path.name == "uint8-cpu"


@pytest.fixture(scope="module")
def graphs(compiled: Bundle) -> dict[GraphName, ir.Model]:
    return {name: ir.load(compiled.graph_file(name)) for name in GRAPH_NAMES}


@pytest.mark.slow
def test_inputs_and_outputs_are_not_16_bit(compiled: Bundle) -> None:
    for spec in compiled.manifest.graphs.values():
        assert "float16" not in {tensor.dtype for tensor in (*spec.inputs, *spec.outputs)}


def test_integers_stay_in_the_weight_file(plume_tiny_int8: Bundle, compiled: Bundle, graphs: dict[GraphName, ir.Model]) -> None:
    before, after = load_file(plume_tiny_int8.file(WEIGHTS)), load_file(compiled.file(WEIGHTS))
    for name, weight in before.items():
        if after[name].dtype == np.uint8 != weight.dtype:
            np.testing.assert_array_equal(after[name], weight.astype(np.int16) + 128)
        else:
            np.testing.assert_array_equal(after[name], weight)
    for graph in graphs.values():
        layers = [value for name, value in graph.graph.initializers.items() if name.endswith("_proj.weight")]
        for value in layers:
            assert isinstance(value.const_value, ir.ExternalTensor)
            assert value.const_value.location == WEIGHTS
            assert value.const_value.dtype == value.dtype == (ir.DataType.UINT8 if is_unsigned(compiled) else ir.DataType.INT8)


@pytest.mark.filterwarnings("ignore:.*which this CPU's matmuls use:UserWarning")
@pytest.mark.slow
def test_both_kinds_of_weights_embed_alike_on_any_processor(
    plume_tiny_int8: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    embeddings = []
    for exactly in (True, False):
        monkeypatch.setattr(builder, "has_exact_int8_sums", lambda exactly=exactly: exactly)
        bundle = compile_for_onnxruntime(plume_tiny_int8, tmp_path / str(exactly))
        for here in (True, False) if not exactly or has_exact_int8_sums() else (False,):
            monkeypatch.setattr(onnxruntime_cpu, "has_exact_int8_sums", lambda here=here: here)
            with Embedder(bundle) as embedder:
                embeddings.append(embedder.embed(["three large cyan stars", "a page"]))
    for other in embeddings[1:]:
        np.testing.assert_allclose(other, embeddings[0], atol=1e-5)


@pytest.mark.parametrize("is_exact", [True, False])
def test_another_kind_of_processor_is_told(compiled: Bundle, is_exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled.manifest.product_weights == ("uint8" if is_unsigned(compiled) else "int8")
    monkeypatch.setattr(onnxruntime_cpu, "has_exact_int8_sums", lambda: is_exact)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Embedder(compiled).close()
    cost = "more slowly than int8" if is_unsigned(compiled) else "each graph holds a converted copy in memory"
    assert [cost in str(warning.message) for warning in caught] == ([True] if is_exact == is_unsigned(compiled) else [])
    assert {warning.filename for warning in caught} <= {__file__}  # who opened it


def test_decoder_is_laid_out_once_where_integers_are_exact(compiled: Bundle, graphs: dict[GraphName, ir.Model]) -> None:
    if not is_unsigned(compiled) and not has_exact_int8_sums():
        assert "prepacked" not in load_file(compiled.file(WEIGHTS))  # ONNX Runtime lays out what it changed in memory
        return
    integers = {ir.DataType.INT8, ir.DataType.UINT8}
    large = {
        name
        for name, value in graphs["prefill"].graph.initializers.items()
        if name.endswith("_proj.weight") and value.dtype in integers and value.const_value.nbytes >= INLINE_BYTES
    }
    assert large
    for name in ("prefill", "latent_step"):
        initializers = onnx.load(compiled.graph_file(name), load_external_data=False).graph.initializer
        laid_out = {one.name for one in initializers for entry in one.external_data if entry.key == "prepacked_0"}
        assert large <= laid_out


@pytest.mark.filterwarnings("ignore:.*which this CPU's matmuls use:UserWarning")
@pytest.mark.slow
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


@pytest.mark.parametrize("precision", ["int8-weight", "int4-weight"])
def test_integer_weights_alone_are_refused(precision: IntegerPrecision) -> None:
    with pytest.raises(PlumeExportError, match="convert whole weights") as error:
        check_onnxruntime_precision("onnxruntime-cpu", precision)
    assert "--precision int8" in str(error.value.command_line_fix)
