"""Where the sample inputs lie that ship with the package."""

from pathlib import Path

from .errors import PlumeExportError


def sample_inputs_file() -> Path:
    """Return the JSON lines file of the sample inputs (top-level calibration/ in a checkout, package data in a wheel)."""
    package = Path(__file__).parent
    for directory in (package / "data" / "calibration", package.parent / "calibration"):
        if (directory / "inputs.jsonl").is_file():
            return directory / "inputs.jsonl"
    raise PlumeExportError("The sample inputs are not installed.", fix="pip install --force-reinstall plume-export")
