"""Embeddings in smaller dtypes: the scale, the order of bits, and that nothing saturates."""

import numpy as np
import pytest

from plume_export.errors import PlumeExportError
from plume_export.runtime.output_rows import check_output_dtype, rows_from_embeddings, unit_rows


def random_rows(count: int, dimension: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_int8_is_127_times_the_element() -> None:
    rows = np.array([[1, 0, 0], [-1, 0, 0], [0.6, -0.8, 0.004]], np.float32)
    converted = rows_from_embeddings(rows, "int8")
    assert converted.dtype == np.int8
    assert converted.tolist() == [[127, 0, 0], [-127, 0, 0], [76, -102, 1]]
    rows = random_rows(50, 1536)
    integers = rows_from_embeddings(rows, "int8").astype(np.float32)
    assert np.abs(integers @ integers.T / 127**2 - rows @ rows.T).max() < 0.02


def test_binary_has_the_first_element_in_the_highest_bit() -> None:
    rows = np.zeros((2, 12), np.float32)
    rows[0, [0, 9]] = 0.7
    rows[1, 1:] = -0.1
    assert rows_from_embeddings(rows, "binary").tolist() == [[0b10000000, 0b01000000], [0, 0]]
    assert rows_from_embeddings(np.empty((0, 12), np.float32), "binary").shape == (0, 2)


def test_floats_keep_nan() -> None:
    rows = np.array([[0.6, 0.8], [np.nan, np.nan]], np.float32)
    assert rows_from_embeddings(rows, "float32") is rows
    half = rows_from_embeddings(rows, "float16")
    assert half.dtype == np.float16
    assert np.isnan(half[1]).all()


def test_what_is_refused() -> None:
    with pytest.raises(PlumeExportError, match=r"output_dtype is 'uint8'\.(.|\n)*float32, float16, int8, binary"):
        check_output_dtype("uint8", is_skipping=False)  # type: ignore[arg-type]
    check_output_dtype("float16", is_skipping=True)
    with pytest.raises(PlumeExportError, match="binary has no NaN"):
        check_output_dtype("binary", is_skipping=True)


def test_a_state_beyond_float32_is_no_row_of_zeros() -> None:
    rows = unit_rows(np.array([[3, 4], [3e38, 3e38], [np.inf, 1]], np.float32))
    np.testing.assert_allclose(rows[0], [0.6, 0.8], rtol=1e-6)
    assert np.isnan(rows[1:]).all()
