"""Bundles for ONNX Runtime's CUDA provider: what is written, and that it computes what the CPU's computes. None runs here."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from plume_export.builders.onnxruntime.onnxruntime_bundle import check_onnxruntime_precision
from plume_export.bundle import WEIGHTS, Bundle, write_manifest
from plume_export.errors import BundleError, InputError, PlumeExportError
from plume_export.pipeline import check_target, compile_bundle
from plume_export.recipe import read_recipe, read_target
from plume_export.runtime.embedder import Embedder
from plume_export.spec import GRAPH_NAMES

SMALL_IMAGES = """
description = "A GPU"
backend = "onnxruntime-cuda"
precision = "fp16"
max_pixels = 50176
[shapes]
batch = [1, 1, 2]
prompt_tokens = [16, 64, 512]
image_tokens = [4, 16, 64]
[software]
python = "3.12"
"""


@pytest.fixture(scope="module")
def compiled(tiny_fp16: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return compile_bundle(tiny_fp16, tmp_path_factory.mktemp("cuda") / "tiny", read_target("cuda"))


def test_the_manifest(compiled: Bundle, tiny_fp16: Bundle) -> None:
    assert compiled.manifest.backend == "onnxruntime-cuda"
    assert compiled.manifest.limits == read_recipe("cuda").shapes
    assert compiled.manifest.model == tiny_fp16.manifest.model
    assert compiled.manifest.engines is None


def test_images_are_scaled_to_the_recipe(tiny_fp16: Bundle, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(SMALL_IMAGES)
    bundle = compile_bundle(tiny_fp16, tmp_path / "out", read_target(str(tmp_path / "own.toml")))
    assert bundle.manifest.model.preprocess.max_pixels == 50176
    assert bundle.manifest.limits is not None
    assert bundle.manifest.limits.batch == (1, 1, 2)


def test_the_graphs_are_those_of_the_cpu_without_a_cached_start(compiled: Bundle, tiny_fp16: Bundle, tmp_path: Path) -> None:
    cpu = compile_bundle(tiny_fp16, tmp_path / "cpu", read_target("cpu"))
    assert compiled.manifest.cached_start is None
    same = [graph for graph in GRAPH_NAMES if compiled.graph_file(graph).read_bytes() == cpu.graph_file(graph).read_bytes()]
    assert same == ["vision_encoder", "latent_step"]


@pytest.mark.slow
def test_on_the_cpu_provider_it_computes_the_same(compiled: Bundle, tiny_fp16: Bundle, tmp_path: Path) -> None:
    """The provider differs, the graphs do not: named as the CPU's, the bundle runs there."""
    manifest = msgspec.structs.replace(compiled.manifest, backend="onnxruntime")
    renamed = compile_bundle(tiny_fp16, tmp_path / "renamed", read_target("cuda"))
    (renamed.path / "manifest.json").unlink()
    write_manifest(renamed.path, manifest)
    item = [{"text": "two dogs on a beach"}]
    with (
        Embedder(renamed.path) as embedder,
        Embedder(compile_bundle(tiny_fp16, tmp_path / "cpu", read_target("cpu")).path) as reference,
    ):
        np.testing.assert_allclose(embedder.embed(item), reference.embed(item), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_fused_bf16_graphs_have_the_operators_types(tiny_bf16: Bundle, tmp_path: Path) -> None:
    """ONNX Runtime accepts the types, and only then finds that its CPU provider has no kernel for them."""
    bundle = compile_bundle(tiny_bf16, tmp_path / "bf16", read_target("cuda"))
    fused = {"vision_encoder": "MultiHeadAttention", "prefill": "GroupQueryAttention"}
    for graph, operator in fused.items():
        file = bundle.graph_file(graph)  # type: ignore[arg-type]
        nodes = onnx.load(str(file), load_external_data=False).graph.node
        assert operator in [node.op_type for node in nodes]
        with pytest.raises(
            onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented, match="Could not find an implementation"
        ):
            onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_what_is_refused(compiled: Bundle, tiny_fp32: Bundle, tmp_path: Path) -> None:
    with pytest.raises(PlumeExportError, match="no float32 kernel for GroupQueryAttention"):
        compile_bundle(tiny_fp32, tmp_path / "fp32", read_target("cuda"))
    with pytest.raises(PlumeExportError, match="onnxruntime-cuda cannot run the precision fp32"):
        check_target(read_recipe("cuda"), "fp32")
    with pytest.raises(PlumeExportError, match="onnxruntime-cuda cannot run the precision int8"):
        check_target(read_recipe("cuda"), "int8")
    with pytest.raises(BundleError, match="already compiled for onnxruntime-cuda"):
        compile_bundle(compiled, tmp_path / "again", read_target("cuda"))
    check_onnxruntime_precision("onnxruntime-cuda", "bf16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_recipe_for_the_cpu_is_kept_to(tiny_fp32: Bundle, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(SMALL_IMAGES.replace("onnxruntime-cuda", "onnxruntime-cpu"))
    bundle = compile_bundle(tiny_fp32, tmp_path / "out", read_target(str(tmp_path / "own.toml")))
    assert bundle.manifest.model.preprocess.max_pixels == 50176
    with Embedder(bundle) as embedder:
        with pytest.raises(PlumeExportError, match="accepts 1 to 2"):
            embedder.embed(["a"], batch_size=3)
        with pytest.raises(InputError, match="the limit is 512 in this compiled bundle"):
            embedder.embed(["word " * 600])
        assert embedder.embed(["a", "b", "c"]).shape == (3, 128)


def test_the_portable_bundle_is_untouched(tiny_fp32: Bundle, tiny_cpu: Bundle) -> None:
    operators = {
        node.op_type for node in onnx.load(tiny_fp32.graph_file("vision_encoder"), load_external_data=False).graph.node
    }
    assert "MultiHeadAttention" not in operators
    # onnx refuses external data with a second name ("a potential hardlink attack").
    assert [bundle.file(WEIGHTS).stat().st_nlink for bundle in (tiny_fp32, tiny_cpu)] == [1, 1]


def test_the_cpu_that_ships_has_no_limits(tiny_cpu: Bundle, tiny_fp32: Bundle) -> None:
    assert tiny_cpu.manifest.limits is None
    assert tiny_cpu.manifest.model == tiny_fp32.manifest.model
