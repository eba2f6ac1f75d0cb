"""Where the samples lie that ship with the package: inputs, and the checkpoint of plume-tiny."""

from pathlib import Path

from .errors import PlumeExportError

# The name that stands for the sample checkpoint, wherever a checkpoint is asked for.
PLUME_TINY = "plume-tiny"


def plume_tiny_directory() -> Path:
    """Return the directory of plume-tiny's checkpoint, in the layout of a published one."""
    return Path(__file__).parent / "plume_tiny" / "checkpoint"


def sample_inputs_file() -> Path:
    """Return the JSON lines file of the sample inputs (top-level calibration/ in a checkout, package data in a wheel)."""
    package = Path(__file__).parent
    for directory in (package / "data" / "calibration", package.parent / "calibration"):
        if (directory / "inputs.jsonl").is_file():
            return directory / "inputs.jsonl"
    raise PlumeExportError("The sample inputs are not installed.", fix="pip install --force-reinstall plume-export")
