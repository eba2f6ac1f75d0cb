"""Engines, built for real by TensorRT-RTX on this CPU."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from plume_export import Embedder
from plume_export.build import compile_bundle
from plume_export.builders.tensorrt.flavour import import_flavour
from plume_export.builders.tensorrt.log import figures_from_lines, new_log
from plume_export.builders.tensorrt.network import axis_ranges, check_layer_dtypes, network_from_onnx
from plume_export.bundle import Bundle, open_bundle
from plume_export.cli import main
from plume_export.errors import BundleError, PlumeExportError
from plume_export.recipe import ShapeRanges

RECIPE = """
description = "Small, for tests"
backend = "tensorrt-rtx"
precision = "fp16"
max_pixels = {pixels}
[shapes]
batch = [1, 1, 2]
prompt_tokens = [16, 256, {tokens}]
image_tokens = [4, 64, {image}]
[builder]
optimization_level = 2
[software]
python = "3.11"
"""


def write_recipe(directory: Path, *, tokens: int = 1024, image: int = 256) -> str:
    file = directory / f"test-{tokens}.toml"
    file.write_text(RECIPE.format(tokens=tokens, image=image, pixels=image * 784))
    return str(file)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_recipe(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, tiny_fp16: Bundle, recipe: str) -> Bundle:
    return compile_bundle(tiny_fp16, tmp_path_factory.mktemp("engines") / "tiny", recipe)


def test_all_three_graphs_become_engines(engines: Bundle, tiny_fp16: Bundle) -> None:
    manifest = engines.manifest
    assert manifest.backend == "tensorrt-rtx"
    assert manifest.engines is not None
    assert manifest.engines.source_sha256 == tiny_fp16.sha256
    assert manifest.engines.flavour_version == import_flavour("tensorrt-rtx").version
    assert manifest.model.preprocess.max_pixels == 256 * 784
    for name, entry in manifest.engines.graphs.items():
        assert engines.graph_file(name).stat().st_size == entry.bytes == manifest.files[f"{name}.engine"].bytes
    assert "weights.safetensors" not in manifest.files
    open_bundle(engines.path)  # every hash


def test_the_profile_spans_the_recipe(engines: Bundle) -> None:
    assert engines.manifest.engines is not None
    profiles = {name: entry.profile for name, entry in engines.manifest.engines.graphs.items()}
    hidden, decoder = engines.manifest.model.decoder.hidden, engines.manifest.model.decoder
    assert profiles["vision_encoder"]["patches"] == ((1, 16, 1176), (1, 256, 1176), (2, 1024, 1176))
    assert profiles["prefill"]["input_ids"] == ((1, 16), (1, 256), (2, 1024))
    assert profiles["latent_step"]["suffix_embeddings"][0] == (0, hidden)
    assert profiles["latent_step"]["prefix_keys_0"][2] == (2, decoder.kv_heads, 1024, decoder.head_dim)


def test_weights_are_held_once(engines: Bundle, tiny_fp16: Bundle) -> None:
    """By the builder's own figure, against the bytes of the graph's initializers."""
    import onnx

    assert engines.manifest.engines is not None
    for name, entry in engines.manifest.engines.graphs.items():
        graph = onnx.load(tiny_fp16.graph_file(name), load_external_data=False)
        stored = 0
        for initializer in graph.graph.initializer:
            lengths = [int(item.value) for item in initializer.external_data if item.key == "length"]
            stored += lengths[0] if lengths else len(initializer.raw_data)
        assert entry.weights_bytes <= 1.03 * stored + 4096


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_matrix_product_runs_in_the_precision(precision: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(f"tiny_{precision}")
    flavour = import_flavour("tensorrt-rtx")
    for name in bundle.manifest.graphs:
        log = new_log(flavour)
        network, _parser = network_from_onnx(flavour, flavour.trt.Builder(log), log, bundle.graph_file(name))
        assert check_layer_dtypes(flavour, network, bundle.manifest.precision) >= 8
        wrong = "bf16" if precision == "fp16" else "fp16"
        with pytest.raises(PlumeExportError, match=f"the bundle's precision is {wrong}"):
            check_layer_dtypes(flavour, network, wrong)  # type: ignore[arg-type]


def test_shared_weights_leave_small_engines(tiny_fp16: Bundle, engines: Bundle, recipe: str, tmp_path: Path) -> None:
    text = Path(recipe).read_text()
    (tmp_path / "shared.toml").write_text(text.replace('precision = "fp16"', 'precision = "fp16"\nweights = "shared"'))
    shared = compile_bundle(tiny_fp16, tmp_path / "shared", str(tmp_path / "shared.toml"))
    assert shared.manifest.files["weights.safetensors"] == tiny_fp16.manifest.files["weights.safetensors"]
    assert not list(shared.path.glob("*.onnx"))
    assert shared.manifest.engines is not None
    assert engines.manifest.engines is not None
    entries = shared.manifest.engines.graphs
    assert set(entries["latent_step"].shared_weights) & set(entries["prefill"].shared_weights)
    for name, entry in entries.items():
        baked = engines.manifest.engines.graphs[name]
        assert entry.weights_bytes < 0.5 * baked.weights_bytes  # tensors below 64 KiB stay, which are many here
        assert entry.activation_bytes <= 1.02 * baked.activation_bytes


def test_activations_grow_linearly(tiny_fp16: Bundle, engines: Bundle, tmp_path: Path) -> None:
    """Attention is fused: twice the tokens and patches take at most 2.2 times the memory."""
    twice = compile_bundle(tiny_fp16, tmp_path / "twice", write_recipe(tmp_path, tokens=2048, image=512))
    assert engines.manifest.engines is not None
    assert twice.manifest.engines is not None
    for name, entry in twice.manifest.engines.graphs.items():
        assert entry.activation_bytes <= 2.2 * engines.manifest.engines.graphs[name].activation_bytes, name


def test_bf16_by_command(tiny_bf16: Bundle, recipe: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["compile", str(tiny_bf16.path), "--target", recipe, "--output", str(tmp_path / "engines")]
    )
    assert result.exit_code == 0, result.output
    assert "latent_step" in result.stdout
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "engines")])
    assert "activations MB" in shown.stdout


def test_engines_are_not_run_by_another_backend(engines: Bundle) -> None:
    with pytest.raises(BundleError, match="holds tensorrt-rtx engines"):
        Embedder(engines)


def test_engines_are_not_compiled_again(engines: Bundle, recipe: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="already compiled for tensorrt-rtx"):
        compile_bundle(engines, tmp_path / "again", recipe)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_can_not_be_parsed(tiny_fp16: Bundle, recipe: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_fp16.path, broken)
    (broken / "prefill.onnx").write_bytes(b"no graph")
    with pytest.raises(PlumeExportError, match=r"prefill\.onnx.*can not parse"):
        compile_bundle(open_bundle_unchecked(broken, tiny_fp16), tmp_path / "out", recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def open_bundle_unchecked(path: Path, original: Bundle) -> Bundle:
    return Bundle(path, original.manifest)


def test_a_builder_that_is_killed_is_reported(tiny_fp16: Bundle, recipe: str, tmp_path: Path) -> None:
    """As the kernel does when memory runs out."""
    stop = threading.Event()

    def kill_the_builder() -> None:
        while not stop.wait(0.05):
            with suppress(OSError):  # a process may end while it is looked at
                for pid in children_of(os.getpid()):
                    if "tensorrt.engine" in Path(f"/proc/{pid}/cmdline").read_text():
                        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_the_builder)
    killer.start()
    try:
        with pytest.raises(PlumeExportError, match=r"vision_encoder\.onnx was killed, most likely for want of memory"):
            compile_bundle(tiny_fp16, tmp_path / "out", recipe)
    finally:
        stop.set()
        killer.join()
    assert list(tmp_path.iterdir()) == []


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.5, 2.0])
def test_a_killed_compile_leaves_no_bundle_and_a_rerun_succeeds(
    tiny_fp16: Bundle, recipe: str, tmp_path: Path, seconds: float
) -> None:
    output = tmp_path / "engines"
    command = [sys.executable, "-m", "plume_export", "compile", str(tiny_fp16.path), "--target", recipe, "-o", str(output)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    was_killed = process.wait() == -signal.SIGKILL
    if was_killed:
        with pytest.raises(BundleError):
            open_bundle(output)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    open_bundle(output)


def test_figures_come_from_the_log() -> None:
    lines = [("INFO", f"Total {name} Memory: {size} bytes") for name, size in (("Weights", 7), ("Activation", 5))]
    figures = figures_from_lines(lines)
    assert (figures.weights_bytes, figures.activation_bytes) == (7, 5)
    assert figures_from_lines(lines[:1]).activation_bytes is None


def test_ranges_of_the_axes(tiny_fp16: Bundle) -> None:
    ranges = axis_ranges(ShapeRanges((1, 2, 4), (16, 64, 512), (4, 16, 128)), tiny_fp16.manifest.model, 3)
    assert ranges["patches"] == (16, 64, 512)
    assert ranges["suffix_tokens"] == (0, 0, 3)
    assert ranges["visual_tokens"] == (4, 16, 2048)
