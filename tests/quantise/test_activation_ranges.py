"""Ranges are read as they were written; what no calibration writes is refused."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from plume_export.errors import PlumeExportError
from plume_export.quantise.activation_ranges import About, LinearRange, Ranges, read_ranges, write_ranges

SHA256 = "0" * 64
RANGES = Ranges(
    About(2, "golden", SHA256, 1, SHA256, ("text",)),
    {"prefill": {"model.norm": LinearRange(np.ones(4, np.float32), 3, 2.0, np.full((3, 4), -1, np.float32))}},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_ranges(RANGES, tmp_path / "ranges.npz")
    return tmp_path / "ranges.npz"


def test_round_trip(file: Path) -> None:
    (seen,) = read_ranges(file, SHA256).linears["prefill"].values()
    (written,) = RANGES.linears["prefill"].values()
    for name, value in vars(written).items():
        np.testing.assert_array_equal(getattr(seen, name), value)


def test_the_format_before_is_read(file: Path) -> None:
    """It had a histogram of all input values: 4 channels of 3 rows."""
    with np.load(file) as arrays:
        content = dict(arrays)
    about = msgspec.to_builtins(RANGES.about) | {"format_version": 1}
    content["about"] = np.frombuffer(msgspec.json.encode(about), np.uint8)
    del content["prefill/model.norm/input_rows"]
    np.savez(file, **content, **{"prefill/model.norm/input_histogram": np.array([5, 7])})
    assert read_ranges(file, SHA256).linears["prefill"]["model.norm"].input_rows == 3


def test_a_link_is_no_output(file: Path) -> None:
    before = file.read_bytes()
    file.with_name("link.npz").symlink_to(file.name)
    with pytest.raises(PlumeExportError, match=r"link\.npz is a symbolic link to ranges\.npz; neither is replaced"):
        write_ranges(RANGES, file.with_name("link.npz"))
    assert file.with_name("link.npz").is_symlink()
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("prefill/model.norm/input_abs_max", np.ones(5, np.float32), "have the shapes"),
        ("prefill/model.norm/input_abs_max", np.full(4, -1, np.float32), "negative or not finite"),
        ("prefill/model.norm/input_rows", np.ones(2, np.int64), "have the shapes"),
        ("prefill/model.norm/input_rows", np.array(1.5), "not a positive integer"),
        ("prefill/model.norm/input_rows", np.array(0), "not a positive integer"),
        ("prefill/model.norm/output_abs_max", np.array(np.nan, np.float32), "negative or not finite"),
        ("prefill/model.norm/output_abs_max", np.ones(2, np.float32), "have the shapes"),
        ("prefill/model.norm/input_sample", np.array([None]), "expected numbers"),
        ("other/model.norm/input_sample", np.ones(1), "not the name of a range"),
        ("prefill", np.ones(1), "not the name of a range"),
        ("prefill/other/input_sample", np.ones((1, 1)), "is missing"),
        ("about", np.frombuffer(b"[" * 10_000, np.uint8), "is not a ranges file"),
        ("about", np.frombuffer(b"\xff", np.uint8), "is not a ranges file"),
    ],
)
def test_what_no_calibration_writes(file: Path, name: str, value: np.ndarray, message: str) -> None:
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {name: value})
    with pytest.raises(PlumeExportError, match=message):
        read_ranges(file, SHA256)
