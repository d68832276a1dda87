"""What is written is there whole or not at all, and of many writers once, on a disk and on a real S3 server."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alray import storage
from alray.errors import StorageError, StoragePathError
from alray.storage import clients


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def everything(folder: Path) -> list[str]:
    """All the names in a local folder, temporary ones too."""
    return sorted(p.name for p in folder.iterdir())


def test_what_is_written_is_read_back(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    storage.write_bytes(uri, b"first")
    storage.write_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"second"
    assert storage.size(uri) == 6
    assert storage.sha256(uri) == digest(b"second")
    assert storage.exists(uri) and storage.exists(storage.join(root, "a"))
    assert not storage.exists(storage.join(root, "nothing"))


def test_a_staged_file_is_committed_on_a_clean_exit(root: str) -> None:
    uri = storage.join(root, "deep", "t.parquet")
    table = pa.table({"id": ["a"]})
    with storage.staged(uri) as temp:
        assert temp.suffix == ".parquet"
        pq.write_table(table, temp)
        assert not storage.exists(uri)
    assert storage.read_parquet(uri).equals(table)
    assert not temp.exists()


def test_a_staged_file_that_raises_commits_nothing(root: str) -> None:
    uri = storage.join(root, "t.bin")
    storage.write_bytes(uri, b"old")
    with pytest.raises(RuntimeError, match="half way"), storage.staged(uri) as temp:
        temp.write_bytes(b"new and half")
        raise RuntimeError("half way")
    assert storage.read_bytes(uri) == b"old"
    assert not temp.exists()


def test_a_staged_file_that_was_not_written_says_so(root: str) -> None:
    uri = storage.join(root, "t.bin")
    with pytest.raises(StorageError, match="nothing was written") as caught, storage.staged(uri):
        pass
    assert uri in str(caught.value)


def test_a_write_that_dies_before_its_commit_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "x")
    storage.write_bytes(uri, b"old")

    def die(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "_commit", die)
    for write in (storage.write_bytes, storage.put_once):
        with pytest.raises(KeyboardInterrupt):
            write(uri, b"new")
    assert everything(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_process_killed_before_its_commit_leaves_nothing_that_is_listed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom alray import storage\n"
        "storage._commit = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage.write_bytes(sys.argv[1], b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], check=False)
    assert done.returncode == -9
    assert [name.startswith(".tmp-") for name in everything(tmp_path)] == [True]
    assert storage.list_files(str(tmp_path)) == []
    assert not storage.exists(str(tmp_path / "x"))


def test_readers_never_see_part_of_a_file(root: str) -> None:
    uri = storage.join(root, "x")
    versions = [bytes([i]) * 300_000 for i in range(4)]
    storage.write_bytes(uri, versions[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(storage.read_bytes(uri))

    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read)
        for data in versions * 4:
            storage.write_bytes(uri, data)
        done.set()
        reading.result()
    assert seen and seen <= set(versions)


def test_put_once_keeps_the_first(root: str) -> None:
    uri = storage.join(root, "asks", "0001.json")
    assert storage.put_once(uri, b"first") is True
    assert storage.put_once(uri, b"second") is False
    assert storage.read_bytes(uri) == b"first"
    assert storage.list_files(storage.join(root, "asks")) == [uri]


def test_of_many_threads_one_puts(root: str) -> None:
    for trial in range(5):
        uri = storage.join(root, f"{trial}.lock")
        barrier = threading.Barrier(6)

        def put(who: int, uri: str = uri, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return storage.put_once(uri, bytes([who]))

        with ThreadPoolExecutor(6) as pool:
            won = list(pool.map(put, range(6)))
        assert won.count(True) == 1
        assert storage.read_bytes(uri) == bytes([won.index(True)])


PUT_ALL = """
import json, sys
from alray import storage
who, uris = int(sys.argv[1]), sys.argv[2:]
storage.exists(uris[0])  # what is imported late is imported now
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([storage.put_once(uri, bytes([who])) for uri in uris]))
"""


def test_of_many_processes_one_puts(root: str) -> None:
    uris = [storage.join(root, f"{i}.lock") for i in range(20)]
    commands = [[sys.executable, "-c", PUT_ALL, str(who), *uris] for who in range(3)]
    racers = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wins = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    for i, uri in enumerate(uris):
        won = [win[i] for win in wins]
        assert won.count(True) == 1
        assert storage.read_bytes(uri) == bytes([won.index(True)])


def test_a_put_whose_answer_was_lost_is_still_ours(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"{s3}/{uuid.uuid4().hex}"
    real, calls = clients.s3, []

    def flaky(verb: str, where: str, operation: str, **arguments: object) -> dict[str, object]:
        calls.append(operation)
        answer = real(verb, where, operation, **arguments)
        if len(calls) == 1:
            arguments["Body"].seek(0)  # type: ignore[attr-defined]
            return real(verb, where, operation, **arguments)  # what a client does when the first answer is lost
        return answer

    monkeypatch.setattr(clients, "s3", flaky)
    assert storage.put_once(uri, b"mine") is True
    assert calls == ["put_object", "head_object"]
    assert storage.put_once(uri, b"mine") is False


def test_replace_needs_the_expected_content(root: str) -> None:
    uri = storage.join(root, "lease.json")
    assert storage.replace_if(uri, b"a", expected=digest(b"x")) is False
    assert not storage.exists(uri)
    assert storage.replace_if(uri, b"a", expected=None) is True
    assert storage.replace_if(uri, b"b", expected=None) is False
    assert storage.replace_if(uri, b"b", expected=digest(b"x")) is False
    assert storage.replace_if(uri, b"b", expected=storage.sha256(uri)) is True
    assert storage.read_bytes(uri) == b"b"
    assert storage.list_files(root) == [uri]


def test_of_many_replacers_one_wins_each_turn(root: str) -> None:
    uri = storage.join(root, "counter")
    storage.write_bytes(uri, b"0")

    def count(_: int) -> int:
        wins = 0
        while wins < 5:
            now = storage.read_bytes(uri)
            wins += storage.replace_if(uri, b"%d" % (int(now) + 1), expected=digest(now))
        return wins

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert storage.read_bytes(uri) == b"20"


def test_a_dead_process_does_not_hold_a_lock(tmp_path: Path) -> None:
    uri = str(tmp_path / "lease.json")
    storage.write_bytes(uri, b"old")
    script = (
        "import os, signal, sys\nfrom alray import storage\n"
        "storage.write_bytes = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage.replace_if(sys.argv[1], b'new', expected=storage.sha256(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, uri], check=False)
    assert done.returncode == -9
    assert storage.replace_if(uri, b"mine", expected=digest(b"old")) is True


def test_a_lock_that_is_held_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "lease.json")
    monkeypatch.setattr(storage, "LOCK_S", 0.1)
    with storage._locked(uri), pytest.raises(StorageError, match=r"Cannot lock .*lease\.json"):
        storage.replace_if(uri, b"x", expected=digest(b"y"))


def test_deleting_is_idempotent(tree: str) -> None:
    for _ in range(2):
        storage.delete(tree + "/a.parquet")
        storage.delete_folder(tree + "/sub")
    assert storage.list_files(tree) == [f"{tree}/{name}" for name in (".hidden", "b.parquet", "note.txt")]
    assert storage.list_folders(tree) == [f"{tree}/sub2"]


@pytest.mark.parametrize("uri", ["/", "file:///", "s3://bucket", "gs://bucket/"])
def test_a_whole_bucket_or_disk_is_not_deleted(uri: str) -> None:
    with pytest.raises(StoragePathError, match="whole bucket or disk"):
        storage.delete_folder(uri)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "x"), b"")
    for name in ("x/y", "x/y/z"):
        with pytest.raises(StoragePathError, match=rf"Cannot write .*/{name}: a file stands where a folder is needed"):
            storage.write_bytes(str(tmp_path / name), b"")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    for use in (storage.read_bytes, lambda uri: storage.write_bytes(uri, b"")):
        with pytest.raises(StoragePathError, match=r"Cannot .*: it is a folder\. Give the path of a file"):
            use(str(tmp_path))


def test_a_file_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{storage.TEMPORARY}lock-lease.json").mkdir()  # as of another user: it cannot be opened for writing
    with pytest.raises(StoragePathError, match=r"Cannot lock .*/lease\.json"):
        storage.replace_if(str(tmp_path / "lease.json"), b"", expected="0")


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "Make room; the same command goes on"), (errno.EACCES, "permissions")]
)
def test_what_the_machine_refuses_is_said_with_what_to_do(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(StorageError, match=said), clients.named("write", str(tmp_path)):
        raise OSError(number, "in the system's words")


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(str(tmp_path / "x.json"), {"x": float("nan")})


def test_google_storage_is_not_written_just_once() -> None:
    for write in (
        lambda: storage.put_once("gs://bucket/x", b""),
        lambda: storage.replace_if("gs://bucket/x", b"", expected="0"),
    ):
        with pytest.raises(StoragePathError, match="cannot create a file just once on gs://"):
            write()


def test_what_failed_first_is_told_where_nothing_can_be_put_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(StorageError, match=r"Cannot write .*/x: the disk is read-only\. Give another place"):
        storage.write_bytes(str(tmp_path / "x"), b"1")
