"""Activation ranges, which calibration measures: magnitudes, sampled input rows and the largest output of linear layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import PlumeExportError
from ..npz_file import read_npz
from ..whole_file import replacing

# A latent step and the readout (the last pass, with the suffix) are both graph `latent_step`.
Phase = Literal["vision", "prefill", "step", "readout"]
PHASES: tuple[Phase, ...] = ("vision", "prefill", "step", "readout")
Modality = Literal["text", "image", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "video")
SAMPLE_ROWS = 64
FORMAT_VERSION = 2
# Has a histogram of the inputs instead of the number of rows.
_OLD_FORMAT_VERSION = 1
_ABOUT = "about"


@dataclass(frozen=True)
class LinearRange:
    """The range of one linear layer in one phase. `input_abs_max` is the largest magnitude of every input channel.

    `input_rows` is the number of input rows. `input_sample` has SAMPLE_ROWS of them, evenly spread, or all if there are fewer.
    """

    input_abs_max: NDArray[np.float32]  # [channels]
    input_rows: int
    output_abs_max: float
    input_sample: NDArray[np.float32]  # [rows, channels]

    def merged(self, other: "LinearRange") -> "LinearRange":
        """Return the combined range, with both samples."""
        return LinearRange(
            np.maximum(self.input_abs_max, other.input_abs_max),
            self.input_rows + other.input_rows,
            max(self.output_abs_max, other.output_abs_max),
            np.concatenate([self.input_sample, other.input_sample]),
        )


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The checkpoint and the inputs that ranges were measured with. `modalities` are those of the inputs."""

    format_version: int
    checkpoint: str
    checkpoint_sha256: str
    inputs: int
    inputs_sha256: str
    modalities: tuple[Modality, ...]


@dataclass(frozen=True)
class Ranges:
    """Activation ranges by phase and linear layer. A layer's name is that of its weight in the graphs, without ".weight"."""

    about: About
    linears: dict[Phase, dict[str, LinearRange]]

    def of(self, name: str, phases: Iterable[Phase] = PHASES) -> LinearRange | None:
        """Return a layer's combined range over some phases, or None if it did not run in them."""
        found = [self.linears[phase][name] for phase in phases if name in self.linears.get(phase, {})]
        merged = found[0] if found else None
        for other in found[1:]:
            assert merged is not None
            merged = merged.merged(other)
        return merged


def write_ranges(ranges: Ranges, file: Path) -> None:
    """Write an .npz file atomically."""
    arrays: dict[str, NDArray[Any]] = {_ABOUT: np.frombuffer(msgspec.json.encode(ranges.about), np.uint8)}
    for phase, linears in ranges.linears.items():
        for name, seen in linears.items():
            arrays[f"{phase}/{name}/input_abs_max"] = seen.input_abs_max
            arrays[f"{phase}/{name}/input_rows"] = np.array(seen.input_rows, np.int64)
            arrays[f"{phase}/{name}/output_abs_max"] = np.array(seen.output_abs_max, np.float32)
            arrays[f"{phase}/{name}/input_sample"] = seen.input_sample
    with replacing(file) as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def read_ranges(file: Path, checkpoint_sha256: str) -> Ranges:
    """Read the ranges of a checkpoint. Raises PlumeExportError for another kind of file or another checkpoint."""
    try:
        arrays = read_npz(file)
        about = msgspec.json.decode(arrays.pop(_ABOUT).tobytes(), type=About)
        linears: dict[Phase, dict[str, LinearRange]] = {phase: {} for phase in PHASES}
        for phase, name in sorted({_phase_and_name(key) for key in arrays}):
            if about.format_version == _OLD_FORMAT_VERSION:
                _count_rows(f"{phase}/{name}", arrays)
            linears[phase][name] = _linear_range(f"{phase}/{name}", arrays)
    except OSError as error:
        raise PlumeExportError(f"The ranges {file} cannot be read: {error.strerror or error}.", fix="check the path") from None
    except (KeyError, ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise PlumeExportError(
            f"{file} is not a ranges file: {reason}.", fix="pass a file that plume-export calibrate wrote"
        ) from None
    if about.format_version not in (FORMAT_VERSION, _OLD_FORMAT_VERSION):
        raise PlumeExportError(
            f"The ranges {file} have the format {about.format_version}; this plume-export reads {FORMAT_VERSION}.",
            fix="run plume-export calibrate again",
        )
    if about.checkpoint_sha256 != checkpoint_sha256:
        raise PlumeExportError(
            f"The ranges {file} are of another checkpoint ({about.checkpoint}).",
            fix="run plume-export calibrate with this checkpoint",
        )
    return Ranges(about, linears)


def _phase_and_name(key: str) -> tuple[Phase, str]:
    phase, _, rest = key.partition("/")
    if phase not in PHASES or "/" not in rest:
        raise ValueError(f"{key!r} is not the name of a range")
    return phase, rest.partition("/")[0]


def _count_rows(prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Replace the histogram of the old format, which counts every value of every row, by the number of rows."""
    histogram, channels = arrays.pop(f"{prefix}/input_histogram"), arrays[f"{prefix}/input_abs_max"].size
    if histogram.dtype.kind not in "iu":
        raise ValueError(f"{prefix} has a count that is not an integer")
    arrays[f"{prefix}/input_rows"] = np.array(histogram.sum() // max(1, channels), np.int64)


def _linear_range(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> LinearRange:
    """Raises KeyError for a missing array and ValueError for an invalid one."""
    abs_max, rows, output, sample = (arrays[f"{prefix}/{field}"] for field in LinearRange.__dataclass_fields__)
    if abs_max.ndim != 1 or rows.ndim or output.ndim or sample.ndim != 2 or sample.shape[1] != len(abs_max):
        shapes = [list(array.shape) for array in (abs_max, rows, output, sample)]
        raise ValueError(f"the arrays of {prefix} have the shapes {shapes}")
    if not all(np.isfinite(array).all() for array in (abs_max, output, sample)) or min(abs_max.min(initial=0), output) < 0:
        raise ValueError(f"{prefix} has a magnitude that is negative or not finite")
    if rows.dtype.kind not in "iu" or rows < 1:
        raise ValueError(f"{prefix} has a number of rows that is not a positive integer")
    return LinearRange(abs_max.astype(np.float32), int(rows), float(output), sample.astype(np.float32))
