"""The runtime is light: what `import plume_export` pulls in, and what an environment without torch can do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from plume_export.pipeline import ExportOptions, ModelOptions, build_bundle, open_checkpoint
from plume_export.recipe import read_target
from plume_export.samples import sample_inputs_file

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "safetensors")


def run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_embedder_loads_nothing_heavy() -> None:
    code = "import sys, json, plume_export; from plume_export import Embedder; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(run(sys.executable, "-c", code))
    assert not [name for name in HEAVY if name in loaded]


def test_help_loads_nothing_heavy() -> None:
    code = """
import json, sys
from plume_export.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print(json.dumps(list(sys.modules)))
"""
    loaded = json.loads(run(sys.executable, "-c", code).splitlines()[-1])
    assert not [name for name in HEAVY if name in loaded]


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    output = tmp_path_factory.mktemp("text") / "bundle"
    options = ExportOptions("fp32", modalities="text", selftest_inputs=sample_inputs_file(), guards_range=False)
    build_bundle(
        open_checkpoint(str(tiny_checkpoint), ModelOptions()), output, options, target=read_target("cpu"), report=lambda _: None
    )
    return output


@pytest.mark.slow
def test_text_bundle_has_no_vision_encoder(text_bundle: Path) -> None:
    assert not (text_bundle / "vision_encoder.onnx").exists()
    assert b"visual.blocks" not in (text_bundle / "weights.safetensors").read_bytes()[:1_000_000]


@pytest.mark.slow
@pytest.mark.network
def test_text_bundle_in_an_environment_with_only_the_cpu_extra(text_bundle: Path, tmp_path: Path) -> None:
    """A real, fresh environment: no torch, transformers or onnx is installed there at all."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", str(environment))
    python = str(environment / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", f"{REPOSITORY}[cpu]")
    command = [python, "-m", "plume_export"]
    output = tmp_path / "out.npy"
    run(*command, "embed", str(text_bundle), "--text", "two dogs on a beach", "--output", str(output))
    assert "parity passed" in run(*command, "selftest", str(text_bundle))
    check = "import numpy, sys; print(numpy.linalg.norm(numpy.load(sys.argv[1])))"
    assert float(run(python, "-c", check, str(output))) == pytest.approx(1.0, abs=1e-5)
    installed = {package["name"] for package in json.loads(run(python, "-m", "pip", "list", "--format", "json"))}
    assert not installed & {"torch", "transformers", "onnx", "onnxscript", "onnx-ir", "safetensors"}
