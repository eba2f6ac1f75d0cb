"""doctor on machines that are not here: their facts are given as text."""

import json

import pytest
from click.testing import CliRunner

from plume_export.cli import main
from plume_export.doctor import Check, Gpu, examine, find_gpus, tegra_release


def test_gpus_from_the_drivers_own_words() -> None:
    text = "NVIDIA H200, 9.0, 143771 MiB, 580.159.03\nNVIDIA GeForce RTX 5090, 12.0, 32607 MiB, 580.65.06\n"
    hopper, blackwell = find_gpus(lambda _: text)
    assert hopper == Gpu("NVIDIA H200", "9.0", "143771 MiB", "580.159.03")
    assert not hopper.is_listed_for_rtx
    assert blackwell.is_listed_for_rtx


@pytest.mark.parametrize("output", [None, "", "No devices were found\n"])
def test_no_gpu(output: str | None) -> None:
    (check,) = [check for check in examine(lambda _: output) if check.name == "GPU"]
    assert not check.is_ok
    assert "run on the CPU here" in check.fix


def test_the_release_of_a_jetson() -> None:
    line = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
    assert tegra_release(line) == "36.4.3"
    assert tegra_release("something else") is None


def test_a_missing_extra_names_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.doctor._version", lambda package: None if package == "av" else "1.0")
    checks = {check.name: check for check in examine(lambda _: None)}
    assert checks["extra video"] == Check("extra video", None, "pip install 'plume-export[video]' (missing: av)")
    assert checks["extra evaluate"].found == "pytrec-eval-terrier 1.0, scipy 1.0"
    assert checks["Python"].is_ok


def test_the_command() -> None:
    text = CliRunner().invoke(main, ["doctor"])
    assert text.exit_code == 0
    assert "ok      extra evaluate: pytrec-eval-terrier" in text.stdout
    names = [check["name"] for check in json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)]
    assert names[0] == "Python"
    assert "ONNX Runtime providers" in names
