"""Picks keep their order, their bits and their digest through both formats."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from alray import storage
from alray.errors import StoragePathError, UserError
from alray.selection import Picks
from alray.table import as_ids


def some() -> Picks:
    ids = as_ids(["b", "a", 'ü,"x"', "c\nd"])
    return Picks.ranked(ids, np.array([0.5, 0.5, 0.1, 2 / 3], np.float32), ("strategy", "strategy", "fill", "initial"))


def test_rank_goes_by_score_then_id() -> None:
    assert list(some().ids) == ["c\nd", "a", "b", 'ü,"x"']
    assert some().reasons == ("initial", "strategy", "strategy", "fill")


def test_ids_are_ordered_by_their_utf8_bytes() -> None:
    ids = as_ids(["\U0001f600", "\uffee", "z", "é"])
    ranked = Picks.ranked(ids, np.zeros(4, np.float32), ("fill",) * 4)
    assert [i.encode() for i in ranked.ids] == sorted(i.encode() for i in ids)


def test_the_digest_is_the_sha256_of_the_ids_in_rank_order() -> None:
    assert some().digest() == hashlib.sha256('c\nd\na\nb\nü,"x"'.encode()).hexdigest()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_gives_back_the_same_picks(tmp_path: Path, suffix: str) -> None:
    uri = str(tmp_path / f"picks{suffix}")
    some().write(uri)
    again = Picks.read(uri)
    assert again.digest() == some().digest()
    assert np.array_equal(again.scores, some().scores)
    assert again.reasons == some().reasons


def test_another_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        StoragePathError, match=r"picks\.json`: the format of picks follows the suffix; expected \.parquet or \.csv"
    ):
        some().write(str(tmp_path / "picks.json"))
    assert not list(tmp_path.iterdir())


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "picks.parquet")
    some().write(uri)
    table = storage.read_parquet(uri).replace_schema_metadata({"alray.schema": "2"})
    storage.write_parquet(uri, table)
    with pytest.raises(UserError, match="has schema 2; this alray reads up to 1"):
        Picks.read(uri)
