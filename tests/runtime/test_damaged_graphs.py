"""A graph that cannot be loaded is an error that names its file, on every backend."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from plume_export.builders.tensorrt.graph_weights import weights_of_graph
from plume_export.bundle import Bundle, open_bundle
from plume_export.errors import BundleError
from plume_export.runtime.onnx_reference import OnnxReference
from plume_export.runtime.onnxruntime_cpu import OnnxRuntimeCpu
from tests.fuzz.sample_bundle import write_sample_bundle

Load = Callable[[Bundle], object]
LOADS: dict[str, Load] = {
    "onnxruntime": lambda bundle: OnnxRuntimeCpu(bundle, threads=1).session("prefill"),
    "reference": lambda bundle: OnnxReference(bundle).session("prefill"),
    "weights": lambda bundle: weights_of_graph(bundle.graph_file("prefill")),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    write_sample_bundle(tmp_path)
    return open_bundle(tmp_path)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_sound_graph_loads(bundle: Bundle, load: Load) -> None:
    load(bundle)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_no_protobuf(bundle: Bundle, load: Load) -> None:
    bundle.graph_file("prefill").write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match=r"prefill\.onnx (cannot be|is corrupt)"):
        load(bundle)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_weight_that_lies_nowhere(bundle: Bundle, load: Load) -> None:
    model = onnx.load(bundle.graph_file("prefill"), load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "offset").value = "nowhere"
    bundle.graph_file("prefill").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"prefill\.onnx (cannot be|is corrupt)"):
        load(bundle)
