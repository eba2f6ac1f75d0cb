"""The decoder's weights in the order of the kernels, once for both of its graphs, and results that do not depend on it."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from plume_export import Embedder
from plume_export.builders.onnxruntime import onnxruntime_bundle as builder
from plume_export.builders.onnxruntime.onnxruntime_bundle import compile_for_onnxruntime
from plume_export.bundle import WEIGHTS, Bundle, open_bundle, write_manifest
from plume_export.errors import PlumeExportError

_TEXTS = ["two dogs on a beach", "a red car"]


@pytest.fixture(scope="module")
def unshared(tmp_path_factory: pytest.TempPathFactory, tiny_fp32: Bundle) -> Bundle:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(builder, "_PREPACKED", ())
        return compile_for_onnxruntime(tiny_fp32, tmp_path_factory.mktemp("unshared") / "cpu")


def _layouts(graph_file: Path) -> dict[str, str]:
    """Return what a graph says of its prepacked weights, by name."""
    initializers = onnx.load(graph_file, load_external_data=False).graph.initializer
    return {one.name: entry.value for one in initializers for entry in one.external_data if entry.key == "prepacked_0"}


def test_both_graphs_name_the_same_layouts(tiny_cpu: Bundle) -> None:
    prefill, step = (_layouts(tiny_cpu.graph_file(name)) for name in ("prefill", "latent_step"))
    assert prefill == step
    layers = tiny_cpu.manifest.model.decoder.layers
    kinds = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    assert set(prefill) == {f"decoder.layers.{layer}.{kind}.weight" for layer in range(layers) for kind in kinds}
    assert _layouts(tiny_cpu.graph_file("vision_encoder")) == {}


def test_weight_file_is_safetensors_with_the_same_weights(tiny_cpu: Bundle, unshared: Bundle) -> None:
    before, after = load_file(unshared.file(WEIGHTS)), load_file(tiny_cpu.file(WEIGHTS))
    assert set(after) == {*before, "prepacked"}
    for name, weight in before.items():
        np.testing.assert_array_equal(after[name], weight)


def test_embeddings_are_those_of_weights_laid_out_in_memory(tiny_cpu: Bundle, unshared: Bundle) -> None:
    with Embedder(unshared) as memory, Embedder(tiny_cpu) as file:
        np.testing.assert_array_equal(file.embed(_TEXTS), memory.embed(_TEXTS))


def test_bytes_of_the_layouts_are_what_is_read(tiny_fp32: Bundle, tmp_path: Path) -> None:
    """ONNX Runtime compares them with what its kernel lays out, so damaged ones cannot be taken."""
    bundle = compile_for_onnxruntime(tiny_fp32, tmp_path / "damaged")
    (first, *_) = _layouts(bundle.graph_file("prefill")).values()
    match = re.fullmatch(r".*\|(\d+);(\d+).*", first)
    assert match is not None
    with bundle.file(WEIGHTS).open("r+b") as file:
        file.seek(int(match[1]) + int(match[2]) // 2)
        file.write(b"\xff" * 64)
    with pytest.raises(Exception, match="pre-packed"), Embedder(bundle, verify_hashes=False) as embedder:
        embedder.embed(_TEXTS)


def test_layouts_of_another_processor_are_left_alone(tiny_fp32: Bundle, unshared: Bundle, tmp_path: Path) -> None:
    bundle = compile_for_onnxruntime(tiny_fp32, tmp_path / "moved")
    for name in ("prefill", "latent_step"):
        graph = onnx.load(bundle.path / f"{name}.onnx", load_external_data=False)
        found = [entry for one in graph.graph.initializer for entry in one.external_data if entry.key == "prepacked_0"]
        assert found
        for entry in found:  # another layout has another hash
            entry.value, count = re.subn(r"\d+\|", "1|", entry.value)
            assert count == 1
        onnx.save(graph, bundle.path / f"{name}.onnx")
    (bundle.path / "manifest.json").unlink()
    write_manifest(bundle.path, bundle.manifest)
    with Embedder(open_bundle(bundle.path)) as moved, Embedder(unshared) as memory:
        np.testing.assert_array_equal(moved.embed(_TEXTS), memory.embed(_TEXTS))


def test_half_precision_is_widened_when_loaded_and_not_laid_out(plume_tiny_fp16: Bundle, tmp_path: Path) -> None:
    bundle = compile_for_onnxruntime(plume_tiny_fp16, tmp_path / "fp16-cpu")
    assert bundle.manifest.files[WEIGHTS] == plume_tiny_fp16.manifest.files[WEIGHTS]


def test_failure_of_onnxruntime_leaves_nothing(tiny_fp32: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    load = onnxruntime.InferenceSession

    def refuse(file: str, options: onnxruntime.SessionOptions, **rest: object) -> object:
        if options.optimized_model_filepath:
            raise RuntimeError("no space")
        return load(file, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(PlumeExportError, match=r"prepack the weights of prefill\.onnx: no space"):
        compile_for_onnxruntime(tiny_fp32, tmp_path / "cpu")
    assert list(tmp_path.iterdir()) == []
