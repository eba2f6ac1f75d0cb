"""doctor on machines that are not here: their facts are given."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.machine.checks import EXTRAS, EXTRAS_BESIDE_JETSON, EXTRAS_OF_JETPACK, Check, examine
from plume_export.machine.gpu import Gpu, Read
from plume_export.machine.software import (
    CudaVersions,
    InstalledOnnxRuntime,
    InstalledVariant,
    Software,
    find_software,
    find_variant_state,
)
from plume_export.machine.tensorrt_variant import import_variant
from plume_export.machine.verdict import verdict_of_this_machine
from tests.machine.test_gpu import JETSON, NOTHING, ORIN_NANO, SERVER, SHARED

BARE = Software((), None, None)


def checks_of(gpus: list[Gpu] | None = None, read: Read = NOTHING, software: Software = BARE) -> dict[str, Check]:
    return {check.name: check for check in examine(lambda: gpus or [], read, software)}


def test_a_server() -> None:
    found = [check.found for check in examine(lambda: SERVER, NOTHING, BARE) if check.name == "GPU"]
    assert found == [
        "NVIDIA H200, compute capability 9.0, 150.8 GB (149.9 GB free), driver 580.159.03; "
        "not listed in TensorRT-RTX's support matrix",
        "NVIDIA GeForce RTX 5090, compute capability 12.0, 34.2 GB (32.5 GB free), driver 580.65.06; "
        "listed in TensorRT-RTX's support matrix",
    ]


def test_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.machine.gpu.system_memory", lambda: SHARED)
    checks = checks_of(read=JETSON)
    assert checks["Jetson"].found == ORIN_NANO
    assert checks["Jetson Linux"].found == "36.4.3, JetPack 6"
    assert checks["GPU"].found is not None
    assert "8.0 GB shared with the CPU (5.7 GB free)" in checks["GPU"].found
    assert "extra jetson6" in checks
    assert not {"extra rtx", "extra tensorrt", "extra gpu", "extra jetson7"} & set(checks)


def test_a_machine_without_a_gpu() -> None:
    checks = checks_of()
    assert "run on the CPU" in checks["GPU"].fix
    assert "cuda-bindings" in checks["CUDA runtime"].fix
    assert "plume-export[cpu]" in checks["ONNX Runtime"].fix
    assert "Jetson" not in checks
    assert checks["Python"].is_ok


@pytest.mark.parametrize(
    ("cuda", "found", "fix"),
    [
        (CudaVersions(13000, 13040), "13.0", ""),
        (CudaVersions(13000, 12090), "13.0", ""),
        (CudaVersions(None, 13040), None, "but not run"),
        (CudaVersions(12060, 13040), None, "CUDA 12.6, which is too old for the CUDA runtime 13.4"),
        (CudaVersions(12060, 13040), None, "install packages for CUDA 12"),
    ],
)
def test_the_driver_and_the_runtime(cuda: CudaVersions, found: str | None, fix: str) -> None:
    check = checks_of(SERVER, software=Software((), None, cuda))["CUDA driver"]
    assert check.found == found
    assert fix in check.fix
    assert check.state == ("ok" if found else "missing" if cuda.driver is None else "unusable")


def test_the_variants_of_tensorrt() -> None:
    variants = (InstalledVariant("tensorrt", None, "It is broken.", "mend it"), InstalledVariant("tensorrt-rtx", "1.7.1"))
    checks = checks_of(SERVER[:1], software=Software(variants, None, None))
    assert checks["TensorRT"] == Check("TensorRT", None, "It is broken. mend it")
    assert checks["TensorRT-RTX"].found == "1.7.1, with the ONNX parser"
    assert "does not list compute capability 9.0" in checks["TensorRT-RTX on this GPU"].fix
    assert "TensorRT-RTX on this GPU" not in checks_of(SERVER, software=Software(variants, None, None))
    assert "TensorRT-RTX on this GPU" not in checks_of(None, software=Software(variants, None, None))


def test_two_onnx_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    software = Software((), InstalledOnnxRuntime("1.31.1", ("CUDAExecutionProvider", "CPUExecutionProvider")), None)
    monkeypatch.setattr("plume_export.machine.checks.package_version", lambda package: "1.31.1")
    checks = checks_of(software=software)
    assert checks["ONNX Runtime"].found == "1.31.1, CUDAExecutionProvider, CPUExecutionProvider"
    assert "pip uninstall onnxruntime onnxruntime-gpu" in checks["one ONNX Runtime"].fix
    assert checks["one ONNX Runtime"].state == "unusable"
    monkeypatch.setattr(
        "plume_export.machine.checks.package_version", lambda package: "1.31.1" if package.endswith("-gpu") else None
    )
    checks = checks_of(software=software)
    assert "one ONNX Runtime" not in checks
    assert checks["extra cpu"].is_ok


def test_a_missing_extra_names_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.machine.checks.package_version", lambda package: None if package == "av" else "1.0")
    checks = checks_of()
    assert checks["extra video"] == Check(
        "extra video", None, "pip install 'plume-export[video]' (missing: av)", is_optional=True
    )
    assert checks["extra evaluate"].found == "pytrec-eval-terrier 1.0, scipy 1.0"


def test_the_extra_for_gpus_does_not_go_beside_the_cpu_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.machine.checks.package_version", lambda package: None if "gpu" in package else "1.0")
    assert checks_of()["extra gpu"].fix.startswith("pip uninstall onnxruntime, ")
    monkeypatch.setattr("plume_export.machine.checks.package_version", lambda package: None)
    assert checks_of()["extra gpu"].fix.startswith("pip install ")


def test_the_extras_are_those_of_the_package() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    declared = tomllib.loads(text)["project"]["optional-dependencies"]
    del declared["test"], declared["docs"], declared["examples"]  # not for the package itself
    names = {extra: tuple(sorted(re.match(r"[\w-]+", need)[0] for need in needs)) for extra, needs in declared.items()}  # type: ignore[index]
    assert names == EXTRAS | EXTRAS_BESIDE_JETSON | EXTRAS_OF_JETPACK["6"] | EXTRAS_OF_JETPACK["7"]


@pytest.fixture
def no_tensorrt() -> Iterator[None]:
    """Whatever a test imports as tensorrt is forgotten after it."""
    yield
    sys.modules.pop("tensorrt", None)


@pytest.mark.usefixtures("no_tensorrt")
@pytest.mark.parametrize(
    ("source", "message", "fix"),
    [
        (None, "'tensorrt' is not installed", "pip install 'plume-export[tensorrt]'"),
        ("__version__ = '10.3.0'", "tensorrt 10.3.0 was installed without the ONNX parser", "install the full package"),
        (
            "raise ImportError('libnvinfer.so.10: not there')",
            "installed but cannot be imported: libnvinfer.so.10",
            "reinstall",
        ),
    ],
)
def test_a_variant_that_builds_nothing(
    source: str | None, message: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is not None:
        (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    state = find_variant_state("tensorrt")
    assert state.version is None
    assert state.is_broken == (source is not None)
    assert message in state.problem
    assert fix in state.fix
    with pytest.raises(PlumeExportError, match=message.split(":")[0]):
        import_variant("tensorrt")


def test_on_a_jetson_tensorrt_comes_with_jetpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.machine.tensorrt_variant.find_jetson", lambda: object())
    assert "--system-site-packages" in find_variant_state("tensorrt").fix


def test_the_software_of_this_machine() -> None:
    software = find_software()
    assert [variant.name for variant in software.variants] == ["tensorrt", "tensorrt-rtx"]
    assert software.onnxruntime is not None
    assert "CPUExecutionProvider" in software.onnxruntime.providers
    assert software.cuda is not None
    assert software.cuda.runtime >= 12000


def test_the_command() -> None:
    text = CliRunner().invoke(main, ["doctor"])
    assert text.exit_code == 0
    assert "ok       extra evaluate: pytrec-eval-terrier" in text.stdout
    legend, *lines = text.stdout.splitlines()
    states = {line.split()[0] for line in lines[: len(lines) - len(verdict_of_this_machine(find_software()).lines())]}
    assert states <= {"ok", "missing", "unusable"}
    assert all(f"{state}: " in legend for state in states)
    assert "This machine can embed on cpu; compile for cpu, cuda, rtx; export." in lines
    found = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    checks = found["checks"]
    assert (checks[0]["name"], checks[-1]["name"]) == ("Python", "target auto")
    assert "ONNX Runtime" in [check["name"] for check in checks]
    assert all((check["fix"] == "") == (check["found"] is not None) == (check["state"] == "ok") for check in checks)
    assert found["verdict"]["embed"] == ["cpu"]
    assert found["verdict"]["export"] is True
