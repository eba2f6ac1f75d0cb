"""Paths of the built-in samples: inputs, and the checkpoint of plume-tiny."""

from pathlib import Path

from .errors import PlumeExportError

# The name of the sample checkpoint, accepted wherever a checkpoint is expected.
PLUME_TINY = "plume-tiny"


def plume_tiny_directory() -> Path:
    """Return the directory of plume-tiny's checkpoint, in the layout of the original checkpoint."""
    return Path(__file__).parent / "plume_tiny" / "checkpoint"


def sample_inputs_file() -> Path:
    """Return the JSON lines file of the sample inputs, for the self-test and parity."""
    return _inputs_file("inputs.jsonl")


def calibration_inputs_file() -> Path:
    """Return the JSON lines file of the calibration inputs."""
    return _inputs_file("calibration.jsonl")


def held_out_inputs_file() -> Path:
    """Return the JSON lines file of the held-out inputs, which measure the cost of a precision. Calibration never uses them."""
    return _inputs_file("held_out.jsonl")


def _inputs_file(name: str) -> Path:
    """Return a file of calibration/ in a checkout, or of the package data in a wheel."""
    package = Path(__file__).parent
    for directory in (package / "data" / "calibration", package.parent / "calibration"):
        if (directory / name).is_file():
            return directory / name
    raise PlumeExportError(f"The sample inputs {name} are not installed.", fix="pip install --force-reinstall plume-export")
