"""Training in this process commits each epoch and resumes after the last one committed."""

import pytest

from alray import storage
from alray.runtime.local_train import train


def count(config, worker):
    """Count to `config["to"]`, one number an epoch; fail before committing the number `config["fail_at"]`."""
    with worker.resume() as folder:
        done = int((folder / "n.txt").read_text()) if folder else 0
    for n in range(done + 1, config["to"] + 1):
        if n == config.get("fail_at"):
            raise RuntimeError("cut")
        worker.report({"n": n, "from": done}, lambda path, n=n: (path / "n.txt").write_text(str(n)) and None)


def test_a_cut_run_goes_on_after_its_last_commit(tmp_path):
    folder = str(tmp_path)
    with pytest.raises(RuntimeError, match="cut"):
        train(count, {"to": 6, "fail_at": 4}, name="a", folder=folder)
    result = train(count, {"to": 6}, name="a", folder=folder)
    assert result.metrics == {"n": 6, "from": 3}
    assert [m["n"] for m in result.history] == [1, 2, 3, 4, 5, 6]
    assert storage.read_text(storage.join(result.checkpoint, "n.txt")) == "6"
    assert [f.rsplit("/", 1)[-1] for f in storage.list_folders(str(tmp_path / "a"))] == ["checkpoint-00006"]


def test_a_finished_run_answers_again_without_working(tmp_path):
    first = train(count, {"to": 2}, name="a", folder=str(tmp_path))
    assert train(count, {"to": 2, "fail_at": 1}, name="a", folder=str(tmp_path)) == first


def test_another_name_starts_afresh(tmp_path):
    train(count, {"to": 2}, name="a", folder=str(tmp_path))
    assert train(count, {"to": 1}, name="b", folder=str(tmp_path)).history == [{"n": 1, "from": 0}]


def test_a_checkpoint_that_was_not_named_last_does_not_count(tmp_path, monkeypatch):
    train(count, {"to": 2}, name="a", folder=str(tmp_path))
    write_json = storage.write_json

    def refuse(uri, value):
        if uri.endswith("latest.json"):
            raise OSError("killed here")
        write_json(uri, value)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", refuse)
        with pytest.raises(OSError, match="killed here"):
            train(count, {"to": 3}, name="a", folder=str(tmp_path))
    assert train(count, {"to": 3}, name="a", folder=str(tmp_path)).metrics == {"n": 3, "from": 2}


def test_it_trains_on_object_storage(s3):
    result = train(count, {"to": 2}, name="a", folder=f"{s3}/train-local")
    again = train(count, {"to": 3}, name="a", folder=f"{s3}/train-local")
    assert result.checkpoint.startswith("s3://") and again.metrics == {"n": 3, "from": 2}
