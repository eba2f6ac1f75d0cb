"""Where the samples lie that ship with the package: inputs, and the checkpoint of plume-tiny."""

from pathlib import Path

from .errors import PlumeExportError

# The name that stands for the sample checkpoint, wherever a checkpoint is asked for.
PLUME_TINY = "plume-tiny"


def plume_tiny_directory() -> Path:
    """Return the directory of plume-tiny's checkpoint, in the layout of a published one."""
    return Path(__file__).parent / "plume_tiny" / "checkpoint"


def sample_inputs_file() -> Path:
    """Return the JSON lines file of the sample inputs, for the self-test and parity."""
    return _inputs_file("inputs.jsonl")


def calibration_inputs_file() -> Path:
    """Return the JSON lines file of the inputs that ranges are measured on."""
    return _inputs_file("calibration.jsonl")


def held_out_inputs_file() -> Path:
    """Return the JSON lines file of the inputs that show what a change of precision costs. Ranges never see them."""
    return _inputs_file("held_out.jsonl")


def _inputs_file(name: str) -> Path:
    """Top-level calibration/ in a checkout, package data in a wheel."""
    package = Path(__file__).parent
    for directory in (package / "data" / "calibration", package.parent / "calibration"):
        if (directory / name).is_file():
            return directory / name
    raise PlumeExportError(f"The sample inputs {name} are not installed.", fix="pip install --force-reinstall plume-export")
