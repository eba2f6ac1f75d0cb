"""A graph takes its weights from files that the manifest lists, wherever in the graph its tensors are."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from plume_export.bundle import WEIGHTS, open_bundle, write_manifest
from plume_export.bundle.bundle import read_manifest
from plume_export.bundle.external_data import external_locations
from plume_export.errors import BundleError

from .small_bundle import write_small_bundle


def external_tensor(location: str) -> TensorProto:
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in {"offset": "0", "location": location, "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph_with(place: str, location: str) -> onnx.ModelProto:
    tensor = external_tensor(location)
    graph = helper.make_graph([], "graph", [], [])
    functions = []
    if place == "initializer":
        graph.initializer.append(tensor)
    elif place == "sparse initializer":
        graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "constant":
        graph.node.append(helper.make_node("Constant", [], ["x"], value=tensor))
    elif place == "branch":
        branch = helper.make_graph([helper.make_node("Constant", [], ["x"], value=tensor)], "branch", [], [])
        graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    else:
        node = helper.make_node("Constant", [], ["x"], value=tensor)
        functions.append(helper.make_function("own", "F", [], ["x"], [node], [helper.make_opsetid("", 20)]))
    return helper.make_model(graph, functions=functions)


PLACES = ["initializer", "sparse initializer", "constant", "branch", "function"]


@pytest.mark.parametrize("place", PLACES)
def test_a_location_is_found_wherever_it_is(place: str, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(graph_with(place, "../x").SerializeToString())
    assert external_locations(tmp_path / "a.onnx") == {"../x"}


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("../secret", "expected a plain path"),
        ("/etc/passwd", "expected a plain path"),
        ("*/_ORT_MEM_ADDR_/*", "does not list"),
        ("unlisted", "does not list"),
    ],
)
def test_a_location_outside_the_manifest(location: str, text: str, tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (bundle / "prefill.onnx").write_bytes(graph_with("initializer", location).SerializeToString())
    write_manifest(bundle, read_manifest(bundle))
    (bundle / "unlisted").write_text("secret")
    with pytest.raises(BundleError, match=text):
        open_bundle(bundle)
    unverified = open_bundle(bundle, verify_hashes=False)
    with pytest.raises(BundleError, match=text):
        unverified.checked_graph_file("prefill")


def test_the_weight_file_is_a_fine_location(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (bundle / "prefill.onnx").write_bytes(graph_with("initializer", WEIGHTS).SerializeToString())
    write_manifest(bundle, read_manifest(bundle))
    assert open_bundle(bundle).checked_graph_file("prefill") == bundle / "prefill.onnx"


@pytest.mark.parametrize("data", [b"\x3a", b"\x3a\x05a", b"\xff" * 12, b"\x3b\x00", b"\x3a\xff\xff\xff\xff\x0f", b"\x80" * 20])
def test_a_damaged_graph(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="not an ONNX graph"):
        external_locations(tmp_path / "a.onnx")
