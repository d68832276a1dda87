"""Arrow columns of vectors turned into one fp16 matrix, whole batches at a time.

Stored fp32 and fp64 values are rounded once, here, so that every later step sees the same fp16 bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alray.errors import PoolError

LARGEST = 65_504.0
"""The largest finite fp16 number."""

EXPONENT = np.uint16(0x7C00)
"""The exponent bits of an fp16 number: all set in NaN and Inf, and in no other."""

NOT_A_VECTOR = "`features` is null"
NOT_FINITE = "`features` holds NaN, Inf or null"

Half = npt.NDArray[np.float16]


def stored(column: pa.DataType, uri: str) -> str:
    """Return the float type of a `features` column ("float16", …); PoolError when it is not one vector a row."""
    inner = _storage(column)
    element = inner.value_type if _is_list(inner) else None
    flat = not isinstance(column, pa.FixedShapeTensorType) or len(column.shape) == 1
    if element is None or not pa.types.is_floating(element) or not flat:
        raise PoolError(
            f"{uri}: `features` is {column}; it must be a FixedShapeTensor of one dimension, a FixedSizeList or a "
            f"List of float16, float32 or float64: one vector a row."
        )
    return f"float{element.bit_width}"


def width(column: pa.DataType) -> int | None:
    """Return the D that a column's type fixes; None for a List, whose type fixes none."""
    inner = _storage(column)
    return int(inner.list_size) if pa.types.is_fixed_size_list(inner) else None


def to_half(column: pa.Array, dim: int, uri: str, at: int) -> tuple[Half, dict[int, str]]:
    """Return a `features` column as fp16 [n, dim] and the reason of each unusable row, which is all zeros.

    `uri` and `at` (the column's first row in the file) name the place in messages. PoolError when a vector has
    another size than `dim`, or a finite value that fp16 cannot hold. The matrix may be a read-only view of the column.
    """
    inner = column.storage if isinstance(column, pa.ExtensionArray) else column
    _check_sizes(inner, dim, uri, at)
    valid_N = np.asarray(inner.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    wide_MD = inner.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    rows_M = np.flatnonzero(valid_N)
    with np.errstate(over="ignore", invalid="ignore"):
        half_MD = wide_MD.astype(np.float16, copy=False)
    bad_M = ((half_MD.view(np.uint16) & EXPONENT) == EXPONENT).any(axis=1)  # 4 times as fast as np.isfinite
    if bad_M.any():
        _check_range(wide_MD[bad_M], rows_M[bad_M], uri, at)
        half_MD = np.where(bad_M[:, None], np.float16(0), half_MD)
    half_ND = half_MD
    if len(rows_M) < len(valid_N):
        half_ND = np.zeros((len(valid_N), dim), dtype=np.float16)
        half_ND[rows_M] = half_MD
    reasons = {int(row): NOT_A_VECTOR for row in np.flatnonzero(~valid_N)}
    reasons.update((int(row), NOT_FINITE) for row in rows_M[bad_M])
    return half_ND, reasons


def _check_sizes(inner: pa.Array, dim: int, uri: str, at: int) -> None:
    if pa.types.is_fixed_size_list(inner.type):
        other = inner.type.list_size != dim
        row, size = 0, inner.type.list_size
    else:
        sizes_N = pc.fill_null(pc.list_value_length(inner), dim).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(sizes_N != dim)
        other = len(wrong) > 0
        row, size = (int(wrong[0]), int(sizes_N[wrong[0]])) if other else (0, dim)
    if other:
        raise PoolError(
            f"{uri} row {at + row}: `features` has {size} values, the pool's first rows have {dim}. All rows of a "
            f"pool have the same number of features; make them so and write the file again."
        )


def _check_range(wide_MD: npt.NDArray[np.floating], rows_M: npt.NDArray[np.int64], uri: str, at: int) -> None:
    beyond_MD = np.isfinite(wide_MD) & (np.abs(wide_MD.astype(np.float64)) > LARGEST)
    with np.errstate(over="ignore", invalid="ignore"):
        beyond_MD &= ~np.isfinite(wide_MD.astype(np.float16))
    if beyond_MD.any():
        row, place = np.argwhere(beyond_MD)[0]
        value = wide_MD[row, place]
        raise PoolError(
            f"{uri} row {at + int(rows_M[row])}: `features` holds {value:g}, which float16 cannot hold "
            f"(±{LARGEST:g}). Scale the features, for instance each row to length 1, and write the file again."
        )


def _storage(column: pa.DataType) -> pa.DataType:
    return column.storage_type if isinstance(column, pa.BaseExtensionType) else column


def _is_list(column: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(column) or pa.types.is_list(column) or pa.types.is_large_list(column))
