"""Columns of vectors to fp16: every Arrow form, bad rows, and values or sizes that are refused."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import pyarrow as pa
import pytest

from alray.errors import PoolError
from alray.pool import Pool, vectors


def open_one(folder: Path, column: pa.Array, row_group: int = 4) -> Pool:
    return Pool.open(
        builders.parquet(folder / "pool.parquet", {"id": builders.ids(len(column)), "features": column}, row_group),
        rows_per_shard=5,
    )


def read_all(pool: Pool) -> tuple[np.ndarray, dict[int, str]]:
    parts = [shard.features() for shard in pool.shards]
    reasons = {s.start + row: why for s, (_, bad) in zip(pool.shards, parts, strict=True) for row, why in bad.items()}
    return np.concatenate([half for half, _ in parts]), reasons


@pytest.mark.parametrize("form", ["fixed", "list", "large_list", "tensor"])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_form_reads_the_same_bits(tmp_path: Path, form: str, kind: type) -> None:
    matrix = np.random.default_rng(1).normal(size=(13, 6)).astype(kind)
    half_ND, reasons = read_all(open_one(tmp_path, builders.vectors(matrix, form)))
    assert half_ND.dtype == np.float16 and np.array_equal(half_ND, matrix.astype(np.float16)) and not reasons


@pytest.mark.parametrize("form", ["fixed", "list", "tensor"])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_null_and_not_finite_rows_are_zeros_with_a_reason(tmp_path: Path, form: str, kind: type) -> None:
    matrix = np.random.default_rng(1).normal(size=(13, 6)).astype(kind)
    broken = matrix.copy()
    broken[2, 1], broken[7, 5], broken[12, 0] = np.nan, np.inf, -np.inf
    column = builders.vectors(broken, form)
    whole = column.storage if form == "tensor" else column
    cells = [None if row in (0, 9) else cell for row, cell in enumerate(whole.to_pylist())]
    column = pa.array(cells, type=whole.type)
    if form == "tensor":
        column = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.from_numpy_dtype(kind), [6]), column)
    half_ND, reasons = read_all(open_one(tmp_path, column))
    assert reasons == {
        0: vectors.NOT_A_VECTOR, 9: vectors.NOT_A_VECTOR,
        2: vectors.NOT_FINITE, 7: vectors.NOT_FINITE, 12: vectors.NOT_FINITE,
    }  # fmt: skip
    good = np.setdiff1d(np.arange(13), list(reasons))
    assert np.array_equal(half_ND[good], matrix[good].astype(np.float16)) and not half_ND[list(reasons)].any()


def test_a_null_among_the_values_is_a_bad_row(tmp_path: Path) -> None:
    column = pa.array([[1.0, 2.0], [3.0, None]], pa.list_(pa.float32(), 2))
    half_ND, reasons = read_all(open_one(tmp_path, column))
    assert reasons == {1: vectors.NOT_FINITE} and half_ND.tolist() == [[1, 2], [0, 0]]


def test_a_list_of_another_size_is_refused_with_its_row(tmp_path: Path) -> None:
    column = pa.array([[1.0, 2.0]] * 7 + [[1.0, 2.0, 3.0]], pa.list_(pa.float32()))
    pool = open_one(tmp_path, column)
    assert pool.dim == 2
    with pytest.raises(PoolError, match=r"pool\.parquet row 7: `features` has 3 values, the pool's first rows have 2"):
        read_all(pool)


def test_the_size_of_a_list_column_is_its_first_vectors(tmp_path: Path) -> None:
    column = pa.array([None, None, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float32()))
    pool = open_one(tmp_path, column)
    assert pool.dim == 3 and read_all(pool)[1] == {0: vectors.NOT_A_VECTOR, 1: vectors.NOT_A_VECTOR}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_value_beyond_fp16_is_refused_with_its_row(tmp_path: Path, kind: type) -> None:
    matrix = np.ones((13, 6), dtype=kind)
    matrix[3, 2], matrix[8, 4] = np.nan, -70_000
    with pytest.raises(PoolError, match=r"row 8: `features` holds -70000, which float16 cannot hold \(±65504\)"):
        read_all(open_one(tmp_path, builders.vectors(matrix)))


def test_a_value_that_rounds_to_the_largest_is_kept(tmp_path: Path) -> None:
    matrix = np.array([[65_519.0, 1e-9]], dtype=np.float32)
    half_ND, reasons = read_all(open_one(tmp_path, builders.vectors(matrix)))
    assert half_ND.tolist() == [[65_504.0, 0.0]] and not reasons
