"""What `--target auto` chooses on machines that are not here."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.machine.gpu import DeviceMemory, Gpu
from plume_export.machine.software import CudaVersions, InstalledOnnxRuntime, InstalledVariant, Software
from plume_export.machine.target import Machine, TargetChoice, choose_target, target_of_this_machine
from plume_export.pipeline import obstacle_to_running
from plume_export.recipe import read_recipe, recipe_names

RECIPES = {name: read_recipe(name) for name in recipe_names()}
CPU_ONLY = InstalledOnnxRuntime("1.32.0", ("CPUExecutionProvider",))
WITH_CUDA = InstalledOnnxRuntime("1.31.1", ("CUDAExecutionProvider", "CPUExecutionProvider"))
MISSING = {
    "tensorrt": InstalledVariant("tensorrt", None, "The Python package 'tensorrt' is not installed.", "get TensorRT"),
    "tensorrt-rtx": InstalledVariant("tensorrt-rtx", None, "The Python package 'tensorrt_rtx' is not installed.", "get RTX"),
}
PRESENT = {
    "tensorrt": InstalledVariant("tensorrt", "10.16.1"),
    "tensorrt-rtx": InstalledVariant("tensorrt-rtx", "1.7.1"),
}
NEW = CudaVersions(13040, 13040)


def software(*installed: str, onnxruntime: InstalledOnnxRuntime | None = CPU_ONLY, cuda: CudaVersions | None = NEW) -> Software:
    variants = tuple(PRESENT[name] if name in installed else MISSING[name] for name in MISSING)
    return Software(variants, onnxruntime, cuda)


def machine(name: str, capability: str, gigabytes: float | None, installed: Software) -> Machine:
    memory = None if gigabytes is None else DeviceMemory(int(gigabytes * 1e9), int(gigabytes * 1e9))
    return Machine(Gpu(0, name, capability, None, None, "580"), memory, installed, RECIPES)


@pytest.mark.parametrize(
    ("name", "capability", "gigabytes", "target"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "8.7", 8.0, "jetson-orin-nano-8gb"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "8.7", 16.3, "jetson-orin-nx-16gb"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "8.7", 65.8, "jetson-agx-orin-64gb"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "11.0", 131.9, "jetson-thor"),
        ("NVIDIA L4", "8.9", 24.2, "l4"),
        ("NVIDIA A100-SXM4-40GB", "8.0", 42.9, "a100"),
        ("NVIDIA A100 80GB PCIe", "8.0", 85.9, "a100"),
        ("NVIDIA H100 80GB HBM3", "9.0", 85.5, "h100"),
        ("NVIDIA H200", "9.0", 150.8, "h200"),
        ("NVIDIA H200", "9.0", None, "h200"),
    ],
)
def test_a_device_with_a_recipe_of_its_own(name: str, capability: str, gigabytes: float | None, target: str) -> None:
    choice = choose_target(machine(name, capability, gigabytes, software("tensorrt", "tensorrt-rtx", onnxruntime=WITH_CUDA)))
    assert choice == TargetChoice(target, f"{name}, compute capability {capability}; TensorRT 10.16.1 is installed")


@pytest.mark.parametrize(
    ("name", "capability", "gigabytes"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", "8.7", 4.0),
        ("NVIDIA L40S", "8.9", 48.3),
        ("NVIDIA GH200 480GB", "9.0", 102.0),
        ("NVIDIA L4", "8.6", 24.2),
    ],
)
def test_a_device_that_is_almost_one(name: str, capability: str, gigabytes: float) -> None:
    choice = choose_target(machine(name, capability, gigabytes, software("tensorrt", onnxruntime=WITH_CUDA)))
    assert choice == TargetChoice("cuda", f"{name}; ONNX Runtime 1.31.1 has a CUDA provider")


@pytest.mark.parametrize(("name", "capability"), [("NVIDIA GeForce RTX 5090", "12.0"), ("NVIDIA L4", "8.9")])
def test_a_listed_gpu_with_tensorrt_rtx(name: str, capability: str) -> None:
    choice = choose_target(machine(name, capability, 24.2, software("tensorrt-rtx", onnxruntime=WITH_CUDA)))
    assert choice == TargetChoice("rtx", f"{name}, compute capability {capability}; TensorRT-RTX 1.7.1 is installed")


def test_hopper_is_not_for_tensorrt_rtx() -> None:
    choice = choose_target(machine("NVIDIA H200", "9.0", 150.8, software("tensorrt-rtx")))
    assert choice.name == "cpu"
    assert "TensorRT-RTX does not list compute capability 9.0" in choice.reason


@pytest.mark.parametrize(
    ("name", "capability", "installed", "reason"),
    [
        (
            "NVIDIA L4",
            "8.9",
            software(),
            "NVIDIA L4 was found but is not used: The Python package 'tensorrt' is not installed; The Python package "
            "'tensorrt_rtx' is not installed; ONNX Runtime with a CUDA provider is not installed. To use it: get TensorRT",
        ),
        (
            "NVIDIA GeForce RTX 5090",
            "12.0",
            software(),
            "NVIDIA GeForce RTX 5090 was found but is not used: no TensorRT recipe matches it; The Python package "
            "'tensorrt_rtx' is not installed; ONNX Runtime with a CUDA provider is not installed. To use it: get RTX",
        ),
        (
            "NVIDIA GeForce GTX 1080",
            "6.1",
            software(onnxruntime=None),
            "NVIDIA GeForce GTX 1080 was found but is not used: no TensorRT recipe matches it; TensorRT-RTX does not list "
            "compute capability 6.1; ONNX Runtime with a CUDA provider is not installed. "
            "To use it: pip install 'plume-export[gpu]'",
        ),
    ],
)
def test_a_gpu_without_software(name: str, capability: str, installed: Software, reason: str) -> None:
    assert choose_target(machine(name, capability, 24.2, installed)) == TargetChoice("cpu", reason)


def test_a_driver_that_is_too_old_for_engines() -> None:
    installed = software("tensorrt", "tensorrt-rtx", cuda=CudaVersions(12060, 13040))
    choice = choose_target(machine("NVIDIA L4", "8.9", 24.2, installed))
    assert choice.name == "cpu"
    assert "its driver supports CUDA 12.6, which is too old for the CUDA runtime 13.4" in choice.reason
    assert choice.reason.endswith("To use it: update the NVIDIA driver")


def test_without_a_gpu_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.machine.target.find_gpus", list)
    monkeypatch.setattr("plume_export.machine.target.find_software", lambda: pytest.fail("it was asked"))
    assert target_of_this_machine() == TargetChoice("cpu", "no NVIDIA GPU was found")


def test_the_commands_say_what_they_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.cli.build.target_of_this_machine", lambda: TargetChoice("l4", "as the test says"))
    result = CliRunner().invoke(main, ["plan"])
    assert result.stderr == "target auto: l4 (as the test says)\n"
    assert '"target":"l4"' in CliRunner().invoke(main, ["plan", "--json"]).stdout
    named = CliRunner().invoke(main, ["plan", "--target", "rtx"])
    assert named.stderr == ""


@pytest.mark.parametrize(
    ("backend", "gpus", "obstacle"),
    [
        ("onnxruntime", [], None),
        ("onnxruntime-cuda", [], "there is no NVIDIA GPU here"),
        ("tensorrt-rtx", [("NVIDIA H200", "9.0")], "TensorRT-RTX does not list compute capability 9.0 of NVIDIA H200"),
        ("tensorrt-rtx", [("NVIDIA L4", "8.9")], None),
        ("tensorrt", [("NVIDIA H200", "9.0")], None),
    ],
)
def test_where_the_self_test_of_a_build_can_run(
    backend: str, gpus: list[tuple[str, str]], obstacle: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Gpu(0, name, capability, None, None, "580") for name, capability in gpus]
    monkeypatch.setattr("plume_export.pipeline.find_gpus", lambda: found)
    bundle = Bundle(Path("unread"), SimpleNamespace(backend=backend))  # type: ignore[arg-type]
    assert obstacle_to_running(bundle) == obstacle
