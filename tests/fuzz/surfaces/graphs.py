"""Where the graphs of a bundle say that their weights lie. The manifest has the right hashes, as a crafted bundle's would."""

from pathlib import Path, PurePosixPath

import onnx
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.builders.tensorrt.graph_weights import weights_of_graph
from plume_export.bundle import MANIFEST, open_bundle, write_manifest
from plume_export.runtime.onnx_reference import OnnxReference
from plume_export.runtime.onnxruntime_cpu import OnnxRuntimeCpu

from ..mutation import INTEGERS, TEXTS, mutated
from ..sample_bundle import sample_manifest, write_sample_bundle
from ..surface import Files, Surface

_GRAPH = "prefill.onnx"
_OUTSIDE = "outside.bin"
_LOCATIONS = (
    *(f"../{_OUTSIDE}", f"./../{_OUTSIDE}", f"a/../../{_OUTSIDE}", f"..\\{_OUTSIDE}", "/etc/passwd"),
    *(
        "",
        ".",
        "..",
        "weights.safetensors/",
        "./weights.safetensors",
        "WEIGHTS.SAFETENSORS",
        "manifest.json",
        "/dev/zero",
        "/proc/self/mem",
    ),
    *("*/_ORT_MEM_ADDR_/*", "file:///etc/passwd"),
)
_KEYS = ("location", "offset", "length", "checksum", "basepath", "prepacked_0", "other", "")


def _write(directory: Path) -> None:
    bundle = directory / "bundle"
    bundle.mkdir()
    write_sample_bundle(bundle)
    (directory / _OUTSIDE).write_bytes(bytes(1 << 16))


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    bundle = directory / "bundle"
    seed = (bundle / _GRAPH).read_bytes()

    @st.composite
    def draw(draw: DrawFn) -> Files:
        if draw(st.integers(0, 3)) == 0:
            content = draw(mutated([seed], [b"location", b"offset", b"length", b"weight"]))
        else:
            content = draw(_edited_entries(seed))
        return {f"bundle/{_GRAPH}": content}

    return draw()


@st.composite
def _edited_entries(draw: DrawFn, seed: bytes) -> bytes:
    model = onnx.load_model_from_string(seed)
    (tensor,) = model.graph.initializer
    values = st.one_of(st.sampled_from(_LOCATIONS), st.sampled_from(TEXTS), st.sampled_from(INTEGERS).map(str))
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.integers(0, 4))
        entries = tensor.external_data
        at = draw(st.integers(0, len(entries) - 1)) if entries else 0
        if kind == 0 or not entries:
            entries.add(key=draw(st.sampled_from(_KEYS)), value=draw(values))
        elif kind == 1:
            del entries[at]
        elif kind == 2:
            tensor.dims[:] = draw(st.lists(st.sampled_from([v for v in INTEGERS if abs(v) < 1 << 63]), max_size=3))
        elif kind == 3:
            tensor.data_type = draw(st.integers(0, 30))
        else:
            entries[at].value = draw(values)
    return model.SerializeToString()


def _read(directory: Path) -> None:
    bundle_directory = directory / "bundle"
    (bundle_directory / MANIFEST).unlink()
    write_manifest(bundle_directory, sample_manifest())
    bundle = open_bundle(bundle_directory)
    weights_of_graph(bundle.graph_file("prefill"))
    OnnxReference(bundle).session("prefill")
    OnnxRuntimeCpu(bundle, threads=1).session("prefill")
    for tensor in onnx.load(bundle.graph_file("prefill"), load_external_data=False).graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                location = PurePosixPath(entry.value)
                assert not location.is_absolute(), entry.value
                assert ".." not in location.parts, entry.value


SURFACE = Surface("graphs", 6, _write, _cases, _read)
