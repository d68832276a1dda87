"""Labelled rows: found in their pool, read once per shard, kept while they fit."""

import builders
import numpy as np
import pyarrow.parquet as pq
import pytest

from alray.errors import LabelsError
from alray.models.transform import Transform
from alray.pool import Pool
from alray.training import rows as rows_of
from alray.training.rows import PictureCache, TrainSet

CLASSES = [f"class-{i}" for i in range(4)]


@pytest.fixture
def given(tmp_path):
    path, ids, labels = builders.image_pool(tmp_path, files=(10, 6))
    return TrainSet(Pool.open(path, rows_per_shard=4), ids[1:14][::-1], labels[1:14][::-1], CLASSES)


def test_rows_are_sorted_by_id_and_know_their_place_and_class(given):
    rows = rows_of.locate(given)
    label_of = dict(zip(given.ids, given.labels, strict=True))
    assert list(rows.ids) == sorted(given.ids)
    for i, name in enumerate(rows.ids):
        shard = rows.shards[rows.shard_M[i]]
        assert shard.ids()[rows.row_M[i]] == name
        assert CLASSES[rows.target_M[i]] == label_of[name]


def test_taken_rows_need_only_their_shards(given):
    rows = rows_of.locate(given)
    few = rows.take(np.array([0, 1, 12]))
    assert len(few.shards) == 2 and few.ids == (rows.ids[0], rows.ids[1], rows.ids[12])
    assert [few.shards[s].ids()[r] for s, r in zip(few.shard_M, few.row_M, strict=True)] == list(few.ids)


def test_chunks_are_of_one_shard_and_cover_all_rows(given):
    chunks = rows_of.locate(given).chunks(3)
    assert all(len(c.shards) == 1 and 1 <= len(c) <= 3 for c in chunks)
    assert sorted(i for c in chunks for i in c.ids) == sorted(given.ids)


def test_the_digest_tells_rows_and_labels_apart(given):
    first = rows_of.locate(given).digest()
    shuffled = TrainSet(given.pool, given.ids[::-1], given.labels[::-1], CLASSES)
    other = TrainSet(given.pool, given.ids, ["class-0", *given.labels[1:]], CLASSES)
    assert rows_of.locate(shuffled).digest() == first != rows_of.locate(other).digest()


def test_unknown_and_repeated_ids_are_named(given):
    with pytest.raises(LabelsError, match=r"1 labelled id\(s\) are not in the pool: nobody"):
        rows_of.locate(TrainSet(given.pool, ["nobody"], ["class-0"], CLASSES))
    with pytest.raises(LabelsError, match=r"1 id\(s\) are labelled twice: row-00001"):
        rows_of.locate(TrainSet(given.pool, ["row-00001"] * 2, ["class-0"] * 2, CLASSES))


@pytest.mark.parametrize("limit", [0, 500, 10**6])
def test_a_picture_is_decoded_once_while_it_fits(given, limit):
    rows, steps, decoded = rows_of.locate(given), Transform.of_size(8), []

    def shrink(picture):
        decoded.append(1)
        return steps.shrink(picture)

    cache = PictureCache(rows, shrink, limit)
    index = np.array([5, 0, 12, 3])
    first, again = cache.load(index), cache.load(index)
    assert list(first) == [5, 0, 12, 3]
    alone = dict(rows_of.pictures(rows, index, steps.shrink))
    assert all((first[i] == again[i]).all() and (first[i] == alone[i]).all() for i in first)
    kept = min(4, limit // first[0].nbytes)
    assert len(decoded) == 4 + 4 - kept


def test_a_bad_picture_is_left_out_with_its_reason(tmp_path, given, caplog):
    path = tmp_path / "bad" / "pool-00.parquet"
    data, _ = builders.picture(0)
    builders.parquet(path, {"id": ["a", "b", "c"], "image": [data, b"no picture", None]})
    assert pq.read_metadata(path).num_rows == 3
    rows = rows_of.locate(TrainSet(Pool.open(str(path)), ["a", "b", "c"], ["class-0"] * 3, CLASSES))
    cache = PictureCache(rows, Transform.of_size(8).shrink, 10**6)
    for _ in range(2):
        assert list(cache.load(np.arange(3))) == [0]
    assert "no picture that alray reads" in cache.bad["b"] and "null" in cache.bad["c"]
    assert sum("training without b" in message for message in caplog.messages) == 1
