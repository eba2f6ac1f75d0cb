"""The GPUs and Jetsons of machines that are not here: what NVML and the system report is given."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from plume_export.machine.gpu import (
    DEVICE_MODEL,
    TEGRA_RELEASE,
    DeviceMemory,
    Gpu,
    Jetson,
    Read,
    device_memory,
    driver_gpus,
    find_gpus,
    find_jetson,
    system_memory,
    tegra_release,
    text_of,
)

R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
ORIN_NANO = "NVIDIA Jetson Orin Nano Developer Kit"
SHARED = DeviceMemory(7802220 << 10, 5520108 << 10)
SERVER = [
    Gpu(0, "NVIDIA H200", "9.0", 143771 << 20, 143000 << 20, "580.159.03"),
    Gpu(1, "NVIDIA GeForce RTX 5090", "12.0", 32607 << 20, 31000 << 20, "580.65.06"),
]
ORIN_BY_NVML = Gpu(0, "Orin (nvgpu)", "unknown", None, None, "540.4.0")


def files(texts: dict[Path, str]) -> Read:
    return texts.get


NOTHING = files({})
JETSON = files({DEVICE_MODEL: ORIN_NANO + "\0", TEGRA_RELEASE: R36})


def no_gpus() -> list[Gpu]:
    return []


def test_what_a_gpu_is() -> None:
    hopper, blackwell = find_gpus(lambda: SERVER, NOTHING)
    assert not hopper.is_listed_for_rtx
    assert not hopper.is_integrated
    assert blackwell.is_listed_for_rtx


class Nvml(ModuleType):
    """nvidia-ml-py on a machine with these GPUs, by index. A function that a GPU lacks raises NVMLError."""

    def __init__(self, *gpus: dict[str, object] | None) -> None:
        super().__init__("pynvml")
        self.NVMLError = type("NVMLError", (Exception,), {})
        self.gpus, self.opened = gpus, 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.159.03"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def __getattr__(self, name: str) -> Callable[[int], object]:
        def reported(index: int) -> object:
            gpu = self.gpus[index]
            if gpu is None or name not in gpu:
                raise self.NVMLError(name)
            return gpu[name]

        return reported


H200 = {
    "nvmlDeviceGetName": "NVIDIA H200",
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=143771 << 20, free=143000 << 20, used=771 << 20),
}
GB10 = {"nvmlDeviceGetName": "NVIDIA GB10", "nvmlDeviceGetCudaComputeCapability": (12, 1)}
LOST: dict[str, object] = {}


def test_gpus_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with memory of its own, one that does not answer, one without memory of its own."""
    nvml = Nvml(H200, LOST, GB10, {"nvmlDeviceGetName": "Orin (nvgpu)"})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert driver_gpus() == [
        Gpu(0, "NVIDIA H200", "9.0", 143771 << 20, 143000 << 20, "580.159.03"),
        Gpu(2, "NVIDIA GB10", "12.1", None, None, "580.159.03"),
        Gpu(3, "Orin (nvgpu)", "unknown", None, None, "580.159.03"),
    ]
    assert nvml.opened == 0


def test_no_driver_and_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()

    def no_driver() -> None:
        raise nvml.NVMLError("NVML Shared Library Not Found")

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    for module in (nvml, None):
        monkeypatch.setitem(sys.modules, "pynvml", module)
        assert driver_gpus() == []


def test_the_names_of_nvml_are_its_own() -> None:
    """The double above has the functions of nvidia-ml-py."""
    pynvml = pytest.importorskip("pynvml")
    own = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert [name for name in (*own, *H200, "NVMLError") if not hasattr(pynvml, name)] == []


def test_no_gpu() -> None:
    assert find_gpus(no_gpus, NOTHING) == []
    assert device_memory(no_gpus, NOTHING) is None


@pytest.mark.parametrize(
    ("listed", "driver"),
    [
        ([], "of Jetson Linux 36.4.3"),
        ([ORIN_BY_NVML], "540.4.0"),
        ([Gpu(0, "Orin (nvgpu)", "8.7", None, None, "540.4.0")], "540.4.0"),
    ],
)
def test_a_jetsons_gpu_is_the_device(listed: list[Gpu], driver: str) -> None:
    (gpu,) = find_gpus(lambda: listed, JETSON)
    assert gpu == Gpu(0, ORIN_NANO, "8.7", None, None, driver)
    assert gpu.is_integrated
    assert not gpu.is_listed_for_rtx


@pytest.mark.parametrize(
    ("model", "capability"), [("NVIDIA Jetson AGX Thor Developer Kit", "11.0"), ("NVIDIA Jetson of 2030", "unknown")]
)
def test_what_the_model_of_a_jetson_tells(model: str, capability: str) -> None:
    (gpu,) = find_gpus(no_gpus, files({DEVICE_MODEL: model}))
    assert gpu.compute_capability == capability


@pytest.mark.parametrize(
    ("number", "jetpack"),
    [("35 (release), REVISION: 6.1", "5"), ("38 (release), REVISION: 2.0", "7"), ("39 (x), REVISION: 0", "7")],
)
def test_the_jetpack_of_a_release(number: str, jetpack: str) -> None:
    jetson = find_jetson(files({TEGRA_RELEASE: f"# R{number}, GCID: 1\n"}))
    assert jetson is not None
    assert jetson.jetpack == jetpack
    assert jetson.model == "Jetson"


def test_which_machines_are_jetsons() -> None:
    assert find_jetson(JETSON) == Jetson(ORIN_NANO, "36.4.3", "6")
    assert find_jetson(files({DEVICE_MODEL: ORIN_NANO})) == Jetson(ORIN_NANO, None, None)
    assert find_jetson(files({DEVICE_MODEL: "Raspberry Pi 5 Model B Rev 1.0\0"})) is None
    assert find_jetson(NOTHING) is None
    assert tegra_release("something else") is None


@pytest.fixture
def _shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=SHARED.total_bytes, available=SHARED.free_bytes)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)


@pytest.mark.usefixtures("_shared_memory")
def test_memory_is_the_drivers_or_the_systems() -> None:
    assert system_memory() == SHARED
    assert device_memory(lambda: SERVER, NOTHING) == DeviceMemory(143771 << 20, 143000 << 20)
    assert device_memory(no_gpus, JETSON) == SHARED
    assert device_memory(lambda: [Gpu(0, "NVIDIA GB10", "12.1", None, None, "580.95.05")], NOTHING) == SHARED


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert text_of(tmp_path / "none") is None
