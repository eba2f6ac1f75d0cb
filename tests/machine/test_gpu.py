"""The GPUs and Jetsons of machines that are not here: what they tell is given as text."""

from pathlib import Path

import pytest

from plume_export.machine.gpu import (
    DEVICE_MODEL,
    SYSTEM_MEMORY,
    TEGRA_RELEASE,
    DeviceMemory,
    Gpu,
    Jetson,
    Read,
    device_memory,
    find_gpus,
    find_jetson,
    output_of,
    tegra_release,
    text_of,
)

R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
MEMINFO = "MemTotal:        7802220 kB\nMemFree:          181512 kB\nMemAvailable:    5520108 kB\nBuffers: 1 kB\n"
ORIN_NANO = "NVIDIA Jetson Orin Nano Developer Kit"
SERVER = "0, NVIDIA H200, 9.0, 143771, 143000, 580.159.03\n1, NVIDIA GeForce RTX 5090, 12.0, 32607, 31000, 580.65.06\n"


def files(texts: dict[Path, str]) -> Read:
    return texts.get


NOTHING = files({})
JETSON = files({DEVICE_MODEL: ORIN_NANO + "\0", TEGRA_RELEASE: R36, SYSTEM_MEMORY: MEMINFO})


def test_gpus_from_the_drivers_own_words() -> None:
    hopper, blackwell = find_gpus(lambda _: SERVER, NOTHING)
    assert hopper == Gpu(0, "NVIDIA H200", "9.0", 143771 << 20, 143000 << 20, "580.159.03")
    assert not hopper.is_listed_for_rtx
    assert not hopper.is_integrated
    assert blackwell.is_listed_for_rtx
    assert blackwell.index == 1


@pytest.mark.parametrize("output", [None, "", "No devices were found\n", "a, b, c, d, e, f\n"])
def test_no_gpu(output: str | None) -> None:
    assert find_gpus(lambda _: output, NOTHING) == []
    assert device_memory(lambda _: output, NOTHING) is None


@pytest.mark.parametrize(
    ("output", "driver"),
    [
        (None, "of Jetson Linux 36.4.3"),
        ("0, Orin (nvgpu), [N/A], [N/A], [N/A], 540.4.0\n", "540.4.0"),
        ("0, Orin (nvgpu), 8.7, [Not Supported], [Not Supported], 540.4.0\n", "540.4.0"),
    ],
)
def test_a_jetsons_gpu_is_the_device(output: str | None, driver: str) -> None:
    (gpu,) = find_gpus(lambda _: output, JETSON)
    assert gpu == Gpu(0, ORIN_NANO, "8.7", None, None, driver)
    assert gpu.is_integrated
    assert not gpu.is_listed_for_rtx


@pytest.mark.parametrize(
    ("model", "capability"), [("NVIDIA Jetson AGX Thor Developer Kit", "11.0"), ("NVIDIA Jetson of 2030", "unknown")]
)
def test_what_the_model_of_a_jetson_tells(model: str, capability: str) -> None:
    (gpu,) = find_gpus(lambda _: None, files({DEVICE_MODEL: model}))
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


def test_memory_is_the_drivers_or_the_systems() -> None:
    assert device_memory(lambda _: SERVER, NOTHING) == DeviceMemory(143771 << 20, 143000 << 20)
    shared = DeviceMemory(7802220 << 10, 5520108 << 10)
    assert device_memory(lambda _: None, JETSON) == shared
    grace = "0, NVIDIA GB10, 12.1, [N/A], [N/A], 580.95.05\n"
    assert device_memory(lambda _: grace, files({SYSTEM_MEMORY: MEMINFO})) == shared
    assert device_memory(lambda _: grace, NOTHING) is None


def test_commands_and_files_that_are_not_there(tmp_path: Path) -> None:
    assert output_of((str(tmp_path / "none"),)) is None
    assert output_of(("false",)) is None
    assert text_of(tmp_path / "none") is None
