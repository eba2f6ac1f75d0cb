"""What works on machines that are not here: their facts are given."""

import pytest

from plume_export.machine.gpu import DeviceMemory, Gpu, Jetson
from plume_export.machine.software import CudaVersions, Software
from plume_export.machine.verdict import Verdict, judge

from .test_target import CPU_ONLY, NEW, WITH_CUDA, software

BARE = Software((), None, None)
OLD_DRIVER = CudaVersions(12060, 13040)
H200 = Gpu(0, "NVIDIA H200", "9.0", None, None, "580")
RTX_5090 = Gpu(0, "NVIDIA GeForce RTX 5090", "12.0", None, None, "580")
V100 = Gpu(0, "Tesla V100", "7.0", None, None, "580")
ORIN = Gpu(0, "NVIDIA Jetson Orin Nano", "8.7", None, None, "540")
JETSON = Jetson("NVIDIA Jetson Orin Nano", "36.4.3", "6")


def verdict(
    monkeypatch: pytest.MonkeyPatch,
    found: Software,
    gpu: Gpu | None = None,
    *,
    missing: tuple[str, ...] = (),
    jetson: Jetson | None = None,
) -> Verdict:
    """Judge a machine with every package but those that are missing."""
    for module in ("checks", "verdict"):
        name = f"plume_export.machine.{module}.package_version"
        monkeypatch.setattr(name, lambda package: None if package.startswith(missing or ("-",)) else "1.0")
    memory = DeviceMemory(8_000_000_000, 8_000_000_000) if jetson else None
    return judge([] if gpu is None else [gpu], memory, jetson, found)


def test_a_cpu_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdict(monkeypatch, software("tensorrt-rtx"))
    assert found == Verdict(["cpu"], ["cpu", "cuda", "rtx"], export=True, cannot=[], fix=None)
    assert found.lines() == ["This machine can embed on cpu; compile for cpu, cuda, rtx; export."]


def test_a_device_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdict(monkeypatch, software(), missing=("torch", "transformers"))
    assert found.lines() == [
        "This machine can embed on cpu; compile for cpu, cuda.",
        "It cannot export.",
        "To add that: pip install 'plume-export[export]'",
    ]


def test_nothing_but_the_base_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdict(monkeypatch, BARE, missing=("onnx", "torch"))
    assert (found.embed, found.compile, found.export) == ([], [], False)
    assert found.lines() == [
        "This machine can neither embed, compile nor export.",
        "To add that: pip install 'plume-export[cpu,compile,export]'",
    ]


def test_each_gpu_wants_the_extra_of_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, extra in ((H200, "tensorrt"), (RTX_5090, "rtx")):
        found = verdict(monkeypatch, software(), gpu, missing=("tensorrt",))
        assert found.cannot == ["embed on the GPU"]
        assert found.fix == f"pip install 'plume-export[{extra}]'"
    found = verdict(monkeypatch, software(), V100, missing=("onnxruntime-gpu",))
    assert found.fix == "pip uninstall -y onnxruntime && pip install 'plume-export[gpu]'"
    found = verdict(monkeypatch, software(), ORIN, missing=("cuda-bindings",), jetson=JETSON)
    assert found.fix == "pip install 'plume-export[jetson6]'"


@pytest.mark.parametrize(
    ("gpu", "found", "backends", "targets"),
    [
        (H200, software("tensorrt", "tensorrt-rtx"), ["cpu", "tensorrt"], ["cpu", "cuda", "h200", "rtx"]),
        (RTX_5090, software("tensorrt-rtx", onnxruntime=WITH_CUDA), ["cpu", "cuda", "tensorrt-rtx"], ["cpu", "cuda", "rtx"]),
        (H200, software(onnxruntime=WITH_CUDA), ["cpu", "cuda"], ["cpu", "cuda"]),
        (H200, software("tensorrt", onnxruntime=WITH_CUDA, cuda=OLD_DRIVER), ["cpu"], ["cpu", "cuda", "h200"]),
        (H200, software("tensorrt", onnxruntime=WITH_CUDA, cuda=None), ["cpu"], ["cpu", "cuda", "h200"]),
        (None, software("tensorrt", onnxruntime=WITH_CUDA), ["cpu"], ["cpu", "cuda"]),
        (H200, software("tensorrt", onnxruntime=None), ["tensorrt"], ["cuda", "h200"]),
    ],
)
def test_what_runs_and_what_can_be_built(
    monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, found: Software, backends: list[str], targets: list[str]
) -> None:
    judged = verdict(monkeypatch, found, gpu)
    assert (judged.embed, sorted(judged.compile)) == (backends, targets)
    assert judged.fix is None  # every package is there: no command helps


def test_an_old_driver_is_no_matter_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdict(monkeypatch, software("tensorrt", onnxruntime=CPU_ONLY, cuda=OLD_DRIVER), H200)
    assert (found.cannot, found.fix) == (["embed on the GPU"], None)
    assert NEW.driver == NEW.runtime
