"""Unreadable rows are kept once, with their reason, and too many stop the run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from alray import storage
from alray.errors import PoolError, QuarantineError
from alray.pool.quarantine import Quarantine, Unreadable


@pytest.fixture
def three() -> Quarantine:
    quarantine = Quarantine()
    quarantine.add("c", 1, 0, "`image` is null")
    quarantine.add("b", 0, 7, "the picture is damaged or cut short: image file is truncated")
    quarantine.add("a", 0, 2, "the picture is damaged or cut short: broken data stream")
    return quarantine


def test_rows_come_in_the_order_of_shards_and_rows(three: Quarantine) -> None:
    assert [(one.shard, one.row, one.id) for one in three] == [(0, 2, "a"), (0, 7, "b"), (1, 0, "c")]


def test_a_replay_adds_nothing_twice(three: Quarantine) -> None:
    three.extend(Quarantine(list(three)))
    three.add("c", 1, 0, "another reason")
    assert len(three) == 3
    assert list(three)[-1] == Unreadable("c", 1, 0, "`image` is null")


def test_it_is_read_back_as_written(three: Quarantine, tmp_path: Path) -> None:
    uri = str(tmp_path / "quarantine.parquet")
    three.write(uri)
    assert list(Quarantine.read(uri)) == list(three)
    assert storage.read_parquet(uri).column_names == ["id", "shard", "row", "reason"]
    Quarantine().write(uri)
    assert len(Quarantine.read(uri)) == 0


def test_numbers_from_numpy_are_stored(tmp_path: Path) -> None:
    import numpy as np

    quarantine = Quarantine()
    quarantine.add("a", int(np.int64(0)), np.int64(3), "x")  # type: ignore[arg-type]
    quarantine.write(str(tmp_path / "q.parquet"))
    assert next(iter(Quarantine.read(str(tmp_path / "q.parquet")))) == ("a", 0, 3, "x")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "q.parquet")
    storage.write_parquet(uri, pa.table({"id": ["a"]}).replace_schema_metadata({"schema": "2"}))
    with pytest.raises(PoolError, match="has schema 2; this alray reads schema 1"):
        Quarantine.read(uri)


def test_the_allowed_share_passes(three: Quarantine) -> None:
    three.check(300, 0.01)
    three.check(3, 1.0)
    Quarantine().check(0, 0.0)


def test_more_than_the_allowed_share_stops_and_says_why(three: Quarantine) -> None:
    with pytest.raises(QuarantineError) as caught:
        three.check(299, 0.01)
    assert str(caught.value) == (
        "3 of 299 rows (1.0%) cannot be read; `pool.max_quarantine` allows 1.0%. Reasons: 2 × the picture is damaged "
        "or cut short, 1 × `image` is null. For example 'a': the picture is damaged or cut short: broken data stream; "
        "'b': the picture is damaged or cut short: image file is truncated; 'c': `image` is null. Repair or remove "
        "these rows, or raise `pool.max_quarantine`."
    )
    with pytest.raises(QuarantineError, match=r"3 of 3 rows \(100.0%\)"):
        three.check(3, 0.0)


def test_many_kinds_of_reason_are_counted() -> None:
    quarantine = Quarantine(Unreadable(str(i), 0, i, f"kind {i}") for i in range(6))
    assert quarantine.summary().endswith("1 × kind 3 and 2 more")
