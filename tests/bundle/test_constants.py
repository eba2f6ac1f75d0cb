"""The constants of a bundle are read whole, or refused with the reason."""

from pathlib import Path

import numpy as np
import pytest

from plume_export.bundle import CONSTANTS, read_constants
from plume_export.errors import BundleError
from tests.golden_model import GOLDEN_MODEL

HIDDEN = GOLDEN_MODEL.decoder.hidden
BLANK, SUFFIX = np.ones((4, HIDDEN), np.float32), np.ones((3, HIDDEN), np.float32)


def test_reads_what_export_writes(tmp_path: Path) -> None:
    np.savez(tmp_path / CONSTANTS, blank_visual_embeddings=BLANK, suffix_embeddings=2 * SUFFIX)
    constants = read_constants(tmp_path, GOLDEN_MODEL)
    np.testing.assert_array_equal(constants.blank_visual_embeddings, BLANK)
    np.testing.assert_array_equal(constants.suffix_embeddings, 2 * SUFFIX)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"blank_visual_embeddings": BLANK}, "suffix_embeddings is missing"),
        ({"blank_visual_embeddings": BLANK[:, 1:], "suffix_embeddings": SUFFIX}, r"\[4, 127\]; expected rows of 128"),
        ({"blank_visual_embeddings": BLANK, "suffix_embeddings": SUFFIX[0]}, r"\[128\]"),
        ({"blank_visual_embeddings": BLANK[:0], "suffix_embeddings": SUFFIX}, r"\[0, 128\]"),
        ({"blank_visual_embeddings": BLANK * np.nan, "suffix_embeddings": SUFFIX}, "not finite"),
        ({"blank_visual_embeddings": BLANK.astype(object), "suffix_embeddings": SUFFIX}, "expected numbers"),
    ],
)
def test_what_no_export_writes(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / CONSTANTS, **arrays)
    with pytest.raises(BundleError, match=message):
        read_constants(tmp_path, GOLDEN_MODEL)


def test_missing_or_no_archive(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=CONSTANTS):
        read_constants(tmp_path, GOLDEN_MODEL)
    (tmp_path / CONSTANTS).write_bytes(b"x")
    with pytest.raises(BundleError, match="not a zip file"):
        read_constants(tmp_path, GOLDEN_MODEL)
