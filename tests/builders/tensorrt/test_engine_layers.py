"""The layers of an engine: as text, as the inspector's JSON, from a bundle, and by command."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from plume_export.builders.tensorrt.engine_layers import (
    EngineLayer,
    EngineTensor,
    dtypes_of,
    layers_from_inspector,
    layers_from_log,
    layers_of_engine,
)
from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.errors import BundleError, PlumeExportError
from plume_export.spec import GRAPH_NAMES
from tests.builders.tensorrt.conftest import Built

# TensorRT-RTX 1.7.
TEXT_RTX = (
    "Layers:\n"
    "Name: __mye1_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0\n"
    "Name: __myl_FcAdd_myl0_9, LayerType: runtime_fusion, Inputs: [ { Name: _to_copy_4.1_myl0, Dimensions: [-1,128], Strides: "
    "[128,1], StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: "
    "decoder.layers.0.qkv_proj.weight, Dimensions: [128,256], Strides: [256,1], StrideOrder: [1,0], Datatype: Half, Format: "
    "(Linear) Row major linear format }], Outputs: [ { Name: out, Dimensions: [-1,256], Strides: [256,1], StrideOrder: [1,0], "
    "Datatype: BFloat16, Format: (Linear) Row major }, { Name: step, Dimensions: [], Strides: [], StrideOrder: [], "
    "Datatype: Int64, Format: (Linear) Row major linear format }], TacticName: __myl_FcAdd_0xdb, StreamId: 0, Metadata: [ONNX "
    "Layer: node_matmul_3]\n"
    "\nI/O Tensors:\n Name: state, IOMode: Input, DataType: Float, Dimensions: [-1,128], Location: Device\n"
)
# TensorRT 10 lists constants among the inputs and calls the dtype otherwise.
TEXT_TENSORRT_10 = (
    "Layers:\n"
    "Name: __myl_MulSum_myl0_0, LayerType: kgen, Inputs: [ { Name: __mye116_dconst, Dimensions: [10,10], Format/Datatype: "
    "Float }, { Name: x, Dimensions: [10,1], Format/Datatype: Float }], Outputs: [ { Name: y, Dimensions: [1,10], "
    "Format/Datatype: Half }], TacticName: __myl_MulSum_0xfa, StreamId: 0, Metadata: \n"
)
# The inspector's, of both: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-tools.html
JSON_TENSORRT_10 = """{"Layers": [{
  "Name": "conv1 + relu1",
  "LayerType": "CaskConvolution",
  "Inputs": [{"Name": "res3", "Location": "Device", "Dimensions": [16, 512, 28, 28], "Format/Datatype": "Row major Int8"}],
  "Outputs": [{"Name": "res4", "Location": "Device", "Dimensions": [16, 1024, 14, 14], "Format/Datatype": "Half"}],
  "ParameterType": "Convolution", "Kernel": [1, 1], "TacticName": "sm80_xmma", "StreamId": 0, "Metadata": ""
}], "Bindings": ["res3", "res4"]}"""
JSON_TENSORRT_11 = """{"Layers": [{
  "Name": "__myl_FcAdd_myl0_9",
  "LayerType": "runtime_fusion",
  "Inputs": [{"Name": "x", "Dimensions": [-1, 128], "Strides": [128, 1], "Datatype": "Half", "Format": "(Linear)"}],
  "Constants": [{"Name": "weight", "Dimensions": [128, 256], "Datatype": "Half", "Format": "(Linear)"}],
  "Outputs": [{"Name": "out", "Dimensions": [-1, 256], "Datatype": "BFloat16", "Format": "(Linear)"}],
  "TacticName": "__myl_FcAdd_0xdb"
}], "I/O Tensors": []}"""


def test_the_builders_text() -> None:
    call, fusion = layers_from_log(TEXT_RTX)
    assert call == EngineLayer("__mye1_0_myl0_0", "shape_call", (), ())
    assert fusion.inputs == (
        EngineTensor("_to_copy_4.1_myl0", "Half", (-1, 128)),
        EngineTensor("decoder.layers.0.qkv_proj.weight", "Half", (128, 256)),
    )
    assert fusion.outputs == (EngineTensor("out", "BFloat16", (-1, 256)), EngineTensor("step", "Int64", ()))
    assert dtypes_of(fusion) == "BFloat16, Int64"
    assert layers_from_log("nothing of the kind") == ()


def test_the_text_of_tensorrt_10() -> None:
    (layer,) = layers_from_log(TEXT_TENSORRT_10)
    assert [tensor.name for tensor in layer.inputs] == ["__mye116_dconst", "x"]
    assert layer.outputs == (EngineTensor("y", "Half", (1, 10)),)


def test_the_inspectors_json() -> None:
    (old,) = layers_from_inspector(JSON_TENSORRT_10)
    assert (old.name, old.kind, dtypes_of(old)) == ("conv1 + relu1", "CaskConvolution", "Half")
    assert old.inputs == (EngineTensor("res3", "Row major Int8", (16, 512, 28, 28)),)
    (new,) = layers_from_inspector(JSON_TENSORRT_11)
    assert [tensor.name for tensor in new.inputs] == ["x", "weight"]
    assert new.outputs == (EngineTensor("out", "BFloat16", (-1, 256)),)


def test_an_engine_that_tells_names_only() -> None:
    with pytest.raises(PlumeExportError, match="only the names of its layers"):
        layers_from_inspector('{"Layers": ["conv1 + relu1"], "Bindings": []}')


@pytest.mark.slow
def test_every_tensor_of_the_builders_text_is_read(tiny_engines: Built) -> None:
    """What a layer reads was written by one before it, is an input of the graph, or has a size: none is lost on the way."""
    for name, spec in tiny_engines.bundle.manifest.graphs.items():
        layers = layers_of_engine(tiny_engines.bundle, name)
        written = {tensor.name for layer in layers for tensor in layer.outputs}
        assert {tensor.name for tensor in spec.outputs} <= written
        read = {tensor.name: tensor for layer in layers for tensor in layer.inputs}
        assert {tensor.name for tensor in spec.inputs if tensor.axes} <= read.keys()
        assert all(-1 not in read[other].shape for other in read.keys() - written - {tensor.name for tensor in spec.inputs})


def test_by_command(tiny_engines: Built) -> None:
    shown = CliRunner().invoke(main, ["inspect", str(tiny_engines.bundle.path), "--layers"])
    assert shown.exit_code == 0, shown.output
    for part in ("prefill: 31 layers", "gemm", "Half", "1x16  1x256  2x1024", "file /", "engine: 0.9 MB"):
        assert part in shown.stdout
    as_json = CliRunner().invoke(main, ["inspect", str(tiny_engines.bundle.path), "--layers", "--json"])
    assert list(json.loads(as_json.stdout)) == list(GRAPH_NAMES)


def test_a_bundle_without_engines(tiny_fp16: Bundle) -> None:
    with pytest.raises(BundleError, match="has no engines; its backend is onnx"):
        layers_of_engine(tiny_fp16, "prefill")


def test_without_a_list_the_engine_is_loaded_which_needs_a_gpu(tiny_engines: Built, tmp_path: Path) -> None:
    manifest = tiny_engines.bundle.manifest
    unlisted = {name: entry for name, entry in manifest.files.items() if not name.endswith(".layers.json")}
    bundle = Bundle(tiny_engines.bundle.path, msgspec.structs.replace(manifest, files=unlisted))
    with pytest.raises(PlumeExportError, match=r"cannot load prefill\.engine to list its layers: .*CUDA") as caught:
        layers_of_engine(bundle, "prefill")
    assert "plume-export doctor" in str(caught.value)
