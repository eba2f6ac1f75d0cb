"""Compiling: what comes out, what is refused, what a killed process leaves."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from plume_export.builders.tensorrt import tensorrt_bundle as compile_module
from plume_export.builders.tensorrt.audit import audit_engine
from plume_export.builders.tensorrt.graph_weights import GraphWeights
from plume_export.bundle import Bundle, open_bundle
from plume_export.cli import main
from plume_export.errors import BundleError, PlumeExportError
from plume_export.pipeline import compile_bundle
from plume_export.recipe import read_target
from tests.builders.tensorrt.conftest import Built, write_recipe

pytestmark = pytest.mark.slow


def test_shared_weights_leave_small_engines(tiny_engines: Built, tmp_path: Path) -> None:
    source = tiny_engines.source
    shared = Built(source, compile_bundle(source, tmp_path / "shared", read_target(write_recipe(tmp_path, weights="shared"))))
    assert shared.bundle.manifest.files["weights.safetensors"] == source.manifest.files["weights.safetensors"]
    assert not list(shared.bundle.path.glob("*.onnx"))
    entries = shared.engines.graphs
    assert set(entries["latent_step"].shared_weights) & set(entries["prefill"].shared_weights)
    for name, entry in entries.items():
        baked = tiny_engines.engines.graphs[name]
        assert entry.weights_bytes < 0.5 * baked.weights_bytes  # tensors below 64 KiB stay, which are many here
        assert entry.activation_bytes <= 1.02 * baked.activation_bytes
        assert audit_engine(entry).findings == ()
    assert shared.engines.duplicate_bytes < 0.2 * tiny_engines.engines.duplicate_bytes


def test_by_command(tiny_bf16: Bundle, recipe: str, tmp_path: Path) -> None:
    arguments = ["compile", str(tiny_bf16.path), "--target", recipe, "--output", str(tmp_path / "engines")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for part in ("latent_step", "file /", "weights in more than one engine: 0.9 MB"):
        assert part in result.stdout


def test_a_contract_that_a_graph_does_not_keep(tiny_fp16: Bundle, recipe: str, tmp_path: Path) -> None:
    """Before anything of it is built, by the child."""
    manifest = tiny_fp16.manifest
    spec = manifest.graphs["vision_encoder"]
    patches = msgspec.structs.replace(spec.inputs[0], dtype="float16")
    changed = msgspec.structs.replace(spec, inputs=(patches, *spec.inputs[1:]))
    source = Bundle(tiny_fp16.path, msgspec.structs.replace(manifest, graphs={**manifest.graphs, "vision_encoder": changed}))
    message = r"vision_encoder\.onnx: The network's input patches is float32 \[-1, -1, 1176\]; expected float16"
    with pytest.raises(PlumeExportError, match=message):
        compile_bundle(source, tmp_path / "out", read_target(recipe))
    assert list(tmp_path.iterdir()) == []


def test_a_defective_engine_is_refused(tiny_fp16: Bundle, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of fewer weights stands for a builder that holds them twice."""
    monkeypatch.setattr(compile_module, "weights_of_graph", lambda _: GraphWeights(frozenset({(0, 1000)}), 0))
    with pytest.raises(
        PlumeExportError, match=r"engine of vision_encoder holds .* its graph has 1,000: some weights are held more than"
    ):
        compile_bundle(tiny_fp16, tmp_path / "out", read_target(recipe))
    assert list(tmp_path.iterdir()) == []


def test_engines_are_not_compiled_again(tiny_engines: Built, recipe: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="already compiled for tensorrt-rtx"):
        compile_bundle(tiny_engines.bundle, tmp_path / "again", read_target(recipe))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_can_not_be_parsed(tiny_fp16: Bundle, recipe: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_fp16.path, broken)
    (broken / "prefill.onnx").write_bytes(b"no graph")
    with pytest.raises(PlumeExportError, match=r"prefill\.onnx is corrupt: it is not an ONNX graph"):
        compile_bundle(open_bundle_unchecked(broken, tiny_fp16), tmp_path / "out", read_target(recipe))
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
        with pytest.raises(PlumeExportError, match=r"vision_encoder\.onnx was killed, most likely because memory ran out"):
            compile_bundle(tiny_fp16, tmp_path / "out", read_target(recipe))
    finally:
        stop.set()
        killer.join()
    assert list(tmp_path.iterdir()) == []


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def test_a_killed_compile_leaves_no_bundle_and_a_rerun_succeeds(tiny_fp16: Bundle, recipe: str, tmp_path: Path) -> None:
    output = tmp_path / "engines"
    command = [sys.executable, "-m", "plume_export", "compile", str(tiny_fp16.path), "--target", recipe, "-o", str(output)]
    for seconds in (0.5, 1.0, 1.5, 2.0):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == -signal.SIGKILL and not output.is_dir():
            with pytest.raises(BundleError):
                open_bundle(output)
        else:
            open_bundle(output)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    open_bundle(output)
