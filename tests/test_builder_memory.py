"""What an engine's builder needs of the host, and what `plan` says on a machine without a GPU."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from plume_export.checkpoint.random import preset_spec
from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.machine.gpu import DeviceMemory
from plume_export.machine.target import TargetChoice
from plume_export.memory_plan import builder_peak_bytes
from plume_export.pipeline import ExportOptions, ModelOptions, build_bundle, open_checkpoint
from plume_export.recipe import read_recipe, read_target
from plume_export.spec import GRAPH_NAMES


def test_what_the_builder_needs_is_what_was_measured() -> None:
    """The benchmark pages: the 2B in fp16, and 2b-slice in weight-only integers, whose figures are rounded to 0.1 GB."""
    recipe = read_recipe("rtx")
    two_b, piece = preset_spec("2b", tokens=151936), preset_spec("2b-slice", tokens=151936)
    assert builder_peak_bytes(recipe, two_b, "fp16", GRAPH_NAMES) == pytest.approx(9.9e9, rel=0.02)
    assert builder_peak_bytes(recipe, piece, "int8-weight", GRAPH_NAMES) == pytest.approx(1.5e9, rel=0.1)
    assert builder_peak_bytes(recipe, piece, "int4-weight", GRAPH_NAMES) == pytest.approx(1.3e9, rel=0.1)


def test_a_builder_that_this_machine_cannot_hold(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Refused before the export."""
    monkeypatch.setattr("plume_export.pipeline.check_target", lambda *_: None)
    monkeypatch.setattr("plume_export.pipeline.system_memory", lambda: DeviceMemory(8 << 30, 100 << 20))
    checkpoint = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    with pytest.raises(PlumeExportError, match=r'this machine.s memory; 105 MB are free(.|\n)*weights = "shared"'):
        build_bundle(checkpoint, tmp_path / "out", ExportOptions(), target=read_target("rtx"), report=pytest.fail)
    assert not list(tmp_path.iterdir())


def test_a_plan_without_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.cli.build.target_of_this_machine", lambda: TargetChoice("cpu", "no NVIDIA GPU was found"))
    result = CliRunner().invoke(main, ["plan"])
    assert result.exit_code == 0, result.output
    assert "planning for rtx" in result.stderr
    assert "rtx, fp16" in result.stdout


def test_a_plan_that_fits_says_what_is_left() -> None:
    result = CliRunner().invoke(main, ["plan", "--target", "jetson-agx-orin-64gb"])
    assert result.exit_code == 0
    assert "fits: 49,605 MB to spare" in result.stdout
