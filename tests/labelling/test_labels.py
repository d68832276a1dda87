"""What a labels file may hold, and what each faulty one is told."""

from __future__ import annotations

from pathlib import Path

import faulty_s3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alray import storage
from alray.errors import LabelsError, StorageError
from alray.labelling import Labels, read_labels


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return str(path)


def test_csv_labels_stay_strings(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "id,label\n007,1\n10,cat\n"))
    assert labels.mapping() == {"007": "1", "10": "cat"}
    assert labels.column("status") == ["labelled", "labelled"]


@pytest.mark.parametrize("column", [pa.array([7, 8]), pa.array(["7", "8"]), pa.array(["7", "8"]).dictionary_encode()])
def test_parquet_labels_become_strings(tmp_path: Path, column: pa.Array) -> None:
    path = str(tmp_path / "labels.parquet")
    pq.write_table(pa.table({"id": ["a", "b"], "label": column, "more": [1, 2]}), path)
    assert read_labels(path).mapping() == {"a": "7", "b": "8"}


def test_written_labels_read_back_equal(tmp_path: Path) -> None:
    path = str(tmp_path / "out.parquet")
    rows = [
        {"id": "b", "label": "x", "annotator": "ann", "seconds": 1.5, "round": 2, "request_id": "r1"},
        {"id": "a", "status": "skipped", "origin": "oracle"},
    ]
    labels = Labels.of(rows)
    labels.write(path)
    assert read_labels(path).rows() == labels.rows()
    assert labels.mapping() == {"b": "x"}
    assert labels.sorted().ids == ["a", "b"]


def test_a_row_said_twice_counts_once(tmp_path: Path) -> None:
    assert len(read_labels(write(tmp_path, "id,label\na,1\nb,2\na,1\n"))) == 2


def test_annotators_may_disagree_and_the_most_frequent_label_wins(tmp_path: Path) -> None:
    text = "id,label,annotator\na,1,x\na,2,y\na,2,z\nb,9,x\nb,8,y\n"
    assert read_labels(write(tmp_path, text)).mapping() == {"a": "2", "b": "8"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,lable\na,1\n", "has no column `label` (it has: id, lable). Did you mean `lable`? Name the"),
        ("id,label\na,1\na,2\n", "`a` is labelled twice: `1` and `2`. Keep one of the rows."),
        ("id,label,annotator\na,1,ann\na,2,ann\n", "`a` is labelled twice by ann: `1` and `2`."),
        ("id,label\na,1\n,2\n", "rows without an id: 2."),
        ("id,label\na,1\nb,\n", "rows without a label: 2. Remove them, or give them the status"),
        ("id,label,status\na,1,labeled\n", "unknown status `labeled`; expected one of labelled, skipped, cancelled."),
        ("id,label,seconds\na,1,soon\n", "column `seconds` holds string, expected double"),
        ("", "cannot be read as CSV"),
    ],
)
def test_faulty_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(LabelsError) as error:
        read_labels(path)
    assert said in str(error.value)
    assert path in str(error.value)


@pytest.mark.parametrize("text", ['id,label\na,"cat\nb,dog\n', 'id,label\na,cat\nb,"dog\nc,"cat"\n'])
def test_a_quote_that_is_never_closed_takes_no_rows_with_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabelsError, match=r"labels with a line break in them: row [12]\. Close the quotes"):
        read_labels(write(tmp_path, text))


def test_float_labels_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "labels.parquet")
    pq.write_table(pa.table({"id": ["a"], "label": [1.0]}), path)
    with pytest.raises(LabelsError, match="expected strings or whole numbers"):
        read_labels(path)
    with pytest.raises(LabelsError, match=r"ends in .csv or .parquet"):
        read_labels("labels.json")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "labels.parquet")
    pq.write_table(pa.table({"id": ["a"], "label": ["1"]}).replace_schema_metadata({"schema": "2"}), path)
    with pytest.raises(LabelsError, match="reads schema 1"):
        read_labels(path)


@pytest.mark.parametrize("other", ["another label", "no table"])
def test_labels_that_are_replaced_while_they_are_read_are_refused(s3: str, other: str) -> None:
    """Half of the columns could be of the file before, and half of the file after."""
    uri = f"{s3}/labels-{other[:2]}.parquet"
    Labels.of({"a": "cat"}).write(uri)
    with faulty_s3.between() as proxy:
        fault = proxy.fail("GET .*labels", "SlowDown", times=1)
        new = Labels.of({"a": "dog"}).to_bytes() if other != "no table" else b"a,dog"
        fault.then = lambda: faulty_s3.put_behind(proxy, uri, new)
        with pytest.raises(StorageError, match=r"was replaced while it was being read\. Nothing was taken from it"):
            read_labels(uri)
    storage.delete(uri)
