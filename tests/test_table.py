"""Tables: rows with aligned columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray.table import Table, as_ids


def table(rows: int = 5, start: int = 0) -> Table:
    return Table(
        [f"r{i}" for i in range(start, start + rows)],
        {"x": torch.arange(start, start + rows), "y": torch.ones(rows, 2)},
    )


def test_ids_are_python_strings_in_one_dimension() -> None:
    for ids in (["a", "bb"], np.array(["a", "bb"]).astype(object), ("a", "bb")):
        found = as_ids(ids)  # type: ignore[arg-type]
        assert found.dtype == object and found.tolist() == ["a", "bb"]
    assert as_ids([]).shape == (0,)


def test_columns_must_be_as_long_as_the_ids() -> None:
    with pytest.raises(ValueError, match="`x` has 2 rows, the table has 3 ids"):
        Table(["a", "b", "c"], {"x": torch.zeros(2)})


def test_take_keeps_rows_together_in_the_order_asked() -> None:
    found = table().take(np.array([3, 0, 3]))
    assert found.ids.tolist() == ["r3", "r0", "r3"] and found["x"].tolist() == [3, 0, 3] and found["y"].shape == (3, 2)
    assert len(table().take(np.array([], dtype=np.int64))) == 0


def test_with_columns_leaves_the_table_it_came_from_alone() -> None:
    before = table()
    after = before.with_columns(z=torch.zeros(5), x=torch.ones(5))
    assert set(before.columns) == {"x", "y"} and before["x"].tolist() == [0, 1, 2, 3, 4]
    assert set(after.columns) == {"x", "y", "z"} and after["x"].tolist() == [1] * 5
    with pytest.raises(ValueError, match="`z`"):
        before.with_columns(z=torch.zeros(4))


def test_only_keeps_the_named_columns() -> None:
    found = table().only("y")
    assert set(found.columns) == {"y"} and found.ids.tolist() == table().ids.tolist()


def test_concat_puts_tables_one_after_the_other() -> None:
    found = Table.concat([table(2), table(3, start=2), table(0)])
    assert found.ids.tolist() == ["r0", "r1", "r2", "r3", "r4"] and found["x"].tolist() == [0, 1, 2, 3, 4]


def test_a_column_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="logits"):
        table()["logits"]


def test_it_says_what_it_holds() -> None:
    assert repr(table()) == "Table(5 rows; x: (5,), y: (5, 2))" and len(table()) == 5
