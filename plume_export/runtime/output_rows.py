"""The rows that users get: unit vectors, in float32 or in a smaller dtype for an index."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..stages import FloatArray

OutputDtype = Literal["float32", "float16", "int8", "binary"]
OUTPUT_DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)
# Elements of a unit vector are in -1 to 1, so one scale fits all and nothing saturates.
INT8_SCALE = 127


def unit_rows(states: NDArray[np.float32]) -> FloatArray:
    """Return states [rows, hidden] as unit vectors, in float32. A row whose norm is not finite becomes NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(states, axis=-1, keepdims=True)
        unit: FloatArray = states / np.where(np.isfinite(norms), np.maximum(norms, np.float32(1e-12)), np.float32(np.nan))
    return unit


def rows_from_embeddings(embeddings: FloatArray, dtype: OutputDtype) -> NDArray[Any]:
    """Return unit vectors [items, hidden] in an output dtype. Rows of NaN are preserved only in the float dtypes.

    `int8` is round(127 x), so a dot product of two rows is 127 * 127 times their cosine. `binary` has one bit per element, 1 if
    x > 0, packed into uint8 [items, hidden / 8] with the first element in the highest bit (as in numpy.packbits; "ubinary" in
    sentence-transformers).
    """
    if dtype == "int8":
        integers: NDArray[np.int8] = np.rint(embeddings * np.float32(INT8_SCALE)).astype(np.int8)
        return integers
    if dtype == "binary":
        return np.packbits(embeddings > 0, axis=1)
    return embeddings.astype(dtype, copy=False)


def has_nan(dtype: OutputDtype) -> bool:
    """Return True if the dtype has NaN, so that a row can mark a skipped item."""
    return dtype in ("float32", "float16")


def check_output_dtype(dtype: OutputDtype, *, is_skipping: bool) -> None:
    """Raise PlumeExportError for an unknown dtype, and for a dtype without NaN if items may be skipped."""
    if dtype not in OUTPUT_DTYPES:
        raise OptionError(f"output_dtype is {dtype!r}.", fix=f"choose one of {', '.join(OUTPUT_DTYPES)}")
    if is_skipping and not has_nan(dtype):
        raise OptionError(
            f"{dtype} has no NaN, so it cannot mark the row of a skipped input.",
            fix="use --output-dtype float32 or float16, or do not skip inputs",
        )
