"""Storage keeps its promises on a disk and on a real S3 server."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alray import storage
from alray.errors import StorageError, StoragePathError


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh folder of either kind."""
    if request.param == "disk":
        return str(tmp_path / "root")
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex[:8]}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def everything(folder: Path) -> list[str]:
    """All the names in a local folder, temporary ones too."""
    return sorted(p.name for p in folder.iterdir())


# Whole or not at all


def test_what_is_written_is_read_back(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    storage.write_bytes(uri, b"first")
    storage.write_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"second"
    assert storage.size(uri) == 6
    assert storage.sha256(uri) == digest(b"second")
    assert storage.exists(uri) and storage.exists(storage.join(root, "a"))
    assert not storage.exists(storage.join(root, "nothing"))


def test_an_input_is_read_at_random(root: str) -> None:
    uri = storage.join(root, "big.bin")
    data = bytes(range(256)) * 4000
    storage.write_bytes(uri, data)
    with storage.open_input(uri) as file:
        assert file.size() == len(data)
        assert file.read_at(10, 513_003) == data[513_003:513_013]


def test_json_text_and_parquet_come_back(root: str) -> None:
    value = {"schema": 1, "name": "größe", "parts": [1, 2.5, None]}
    storage.write_json(storage.join(root, "x.json"), value)
    assert storage.read_json(storage.join(root, "x.json")) == value
    assert "größe" in storage.read_text(storage.join(root, "x.json"))
    table = pa.table({"id": ["a", "b"], "x": [1.0, 2.0]})
    storage.write_parquet(storage.join(root, "x.parquet"), table)
    assert storage.read_parquet(storage.join(root, "x.parquet")).equals(table)
    assert storage.read_parquet(storage.join(root, "x.parquet"), ["x"]).column_names == ["x"]


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


def test_a_stamp_changes_with_the_content(root: str) -> None:
    uri = storage.join(root, "x")
    storage.write_bytes(uri, b"one")
    first = storage.stamp(uri)
    assert storage.stamp(uri) == first
    storage.write_bytes(uri, b"two")
    assert storage.stamp(uri) != first


# Only once


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


def _put_all(start: float, who: int, uris: list[str]) -> list[bool]:
    while time.time() < start:
        pass
    return [storage.put_once(uri, bytes([who])) for uri in uris]


def test_of_many_processes_one_puts(root: str) -> None:
    uris = [storage.join(root, f"{i}.lock") for i in range(20)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(_put_all, [(0.0, 0, [])] * 3)  # all three are up and have imported
        wins = pool.starmap(_put_all, [(time.time() + 0.3, who, uris) for who in range(3)])
    for i, uri in enumerate(uris):
        won = [win[i] for win in wins]
        assert won.count(True) == 1
        assert storage.read_bytes(uri) == bytes([won.index(True)])


def test_a_put_whose_answer_was_lost_is_still_ours(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"{s3}/{uuid.uuid4().hex}"
    real, calls = storage._s3, []

    def flaky(verb: str, where: str, operation: str, **arguments: object) -> dict[str, object]:
        calls.append(operation)
        answer = real(verb, where, operation, **arguments)
        if len(calls) == 1:
            arguments["Body"].seek(0)  # type: ignore[attr-defined]
            return real(verb, where, operation, **arguments)  # what a client does when the first answer is lost
        return answer

    monkeypatch.setattr(storage, "_s3", flaky)
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


# Listing


@pytest.fixture
def tree(root: str) -> str:
    for name in ("b.parquet", "a.parquet", "note.txt", ".hidden", ".tmp-123-a.parquet", "sub/c.parquet", "sub2/d.csv"):
        storage.write_bytes(storage.join(root, name), b"x")
    return root


def names(uris: list[str], root: str) -> list[str]:
    assert all(uri.startswith(root + "/") for uri in uris)
    return [uri.removeprefix(root + "/") for uri in uris]


def test_listings_are_sorted_and_shallow_and_skip_temporary_files(tree: str) -> None:
    assert names(storage.list_files(tree), tree) == [".hidden", "a.parquet", "b.parquet", "note.txt"]
    assert names(storage.list_folders(tree), tree) == ["sub", "sub2"]
    assert storage.list_files(tree + "/nothing") == [] == storage.list_folders(tree + "/nothing")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["a.parquet", "b.parquet", "note.txt"]),
        ("/", ["a.parquet", "b.parquet", "note.txt"]),
        ("/a.parquet", ["a.parquet"]),
        ("/*.parquet", ["a.parquet", "b.parquet"]),
        ("/?.parquet", ["a.parquet", "b.parquet"]),
        ("/[b-z].parquet", ["b.parquet"]),
        ("/*/*.parquet", ["sub/c.parquet"]),
        ("/sub*/*", ["sub/c.parquet", "sub2/d.csv"]),
        ("/su[b]/c.parquet", ["sub/c.parquet"]),
    ],
)
def test_files_globs_and_folders_expand(tree: str, path: str, found: list[str]) -> None:
    assert names(storage.expand(tree + path), tree) == found


def test_several_paths_expand_to_each_file_once(tree: str) -> None:
    found = storage.expand([tree + "/*.parquet", tree + "/a.parquet", tree + "/sub"])
    assert names(found, tree) == ["a.parquet", "b.parquet", "sub/c.parquet"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(root: str) -> None:
    uri = storage.join(root, "part[1].parquet")
    storage.write_bytes(uri, b"x")
    assert storage.expand(uri) == [uri]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("pool/a.parquet", b"x")
    assert storage.expand("pool/*.parquet") == [str(tmp_path / "pool" / "a.parquet")]
    assert storage.expand("*/a.parquet") == [str(tmp_path / "pool" / "a.parquet")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nothing", "There is no file or folder"),
        ("/*.zip", "matches no file"),
        ("/nothing/*.zip", "matches no file"),
        ("/deep", r"has no files\. It has sub-folders, which are not read: give .*/deep/\*/\*"),
    ],
)
def test_finding_nothing_is_the_users_mistake(root: str, path: str, message: str) -> None:
    storage.write_bytes(root + "/deep/er/x", b"x")
    with pytest.raises(StoragePathError, match=message):
        storage.expand([root + path])


# Deleting


def test_deleting_is_idempotent(tree: str) -> None:
    for _ in range(2):
        storage.delete(tree + "/a.parquet")
        storage.delete_folder(tree + "/sub")
    assert names(storage.list_files(tree), tree) == [".hidden", "b.parquet", "note.txt"]
    assert names(storage.list_folders(tree), tree) == ["sub2"]


@pytest.mark.parametrize("uri", ["/", "file:///", "s3://bucket", "gs://bucket/"])
def test_a_whole_bucket_or_disk_is_not_deleted(uri: str) -> None:
    with pytest.raises(StoragePathError, match="whole bucket or disk"):
        storage.delete_folder(uri)


# What a URI may be


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", r"ftp://host/x: alray does not read `ftp://`"),
        ("s3a://bucket/x", r"Did you mean `s3`\?"),
        ("https://host/x", "does not read `https://`"),
        ("s3:bucket/x", "begins with `s3://`"),
        ("s3://", "is no bucket name"),
        ("s3://b/x", "'b' is no bucket name"),
        ("s3://bucket/a/../b", "has no meaning in a bucket"),
        ("s3://bucket/x?region=eu-west-1", r"`storage\.region`"),
        ("file://host/x", "absolute path of this machine"),
        ("", "empty"),
        ("a\0b", "null character"),
    ],
)
def test_other_uris_are_refused(uri: str, message: str) -> None:
    for use in (storage.exists, storage.read_bytes, storage.expand, lambda u: storage.put_once(u, b"")):
        with pytest.raises(StoragePathError, match=message):
            use(uri)


@pytest.mark.parametrize("uri", ["s3://KEY:SECRET@bucket/x", "gs://SECRET@bucket", "https://me:SECRET@host/x"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StoragePathError, match="must not hold credentials") as caught:
        storage.read_bytes(uri)
    assert "SECRET" not in str(caught.value) and "KEY:" not in str(caught.value)


def test_credentials_in_the_query_of_a_uri_are_not_repeated() -> None:
    with pytest.raises(StoragePathError, match="settings in a URI") as caught:
        storage.read_bytes("s3://bucket/x?secret_key=SECRET")
    assert "SECRET" not in str(caught.value)


def test_an_at_sign_in_a_key_is_no_credential(root: str) -> None:
    uri = storage.join(root, "me@home.txt")
    storage.write_bytes(uri, b"x")
    assert storage.list_files(root) == [uri]


def test_file_uris_name_local_files(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"x")
    assert storage.read_bytes(f"file://{tmp_path}/a%20b") == b"x"
    assert storage.local_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert storage.local_path("s3://bucket/x") is None
    assert storage.is_remote("s3://bucket/x") and not storage.is_remote("x")


def test_only_a_bare_local_path_is_relative() -> None:
    assert storage.is_relative("runs/a") and storage.is_relative("./a")
    assert not any(storage.is_relative(uri) for uri in ("/a", "~/a", "file:///a", "s3://bucket/a"))


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("s3://bucket", ("a", "b/c"), "s3://bucket/a/b/c"),
        ("run/", ("x",), "run/x"),
        ("/", ("x",), "/x"),
    ],
)
def test_join(base: str, parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(base, *parts) == joined


@pytest.mark.parametrize("part", ["../x", "a/../../x", "/etc/passwd", ""])
def test_join_stays_inside(part: str) -> None:
    with pytest.raises(StoragePathError, match="names nothing inside 'run'"):
        storage.join("run", part)


# When it fails


def test_a_missing_file_is_the_users_mistake(root: str) -> None:
    uri = storage.join(root, "no.bin")
    for read in (storage.read_bytes, storage.size, storage.stamp, storage.sha256, storage.open_input):
        with pytest.raises(StoragePathError, match=r"no such file") as caught:
            read(uri)
        assert uri in str(caught.value)


def test_a_missing_bucket_is_named(s3: str) -> None:
    with pytest.raises(StoragePathError, match=r"s3://nobody-has-this/x: .*NoSuchBucket"):
        storage.write_bytes("s3://nobody-has-this/x", b"")


@pytest.mark.parametrize(
    "use",
    [
        storage.read_bytes, storage.exists, storage.list_files, storage.stamp, storage.expand, storage.delete,
        lambda uri: storage.write_bytes(uri, b"x"), lambda uri: storage.put_once(uri, b"x"),
        lambda uri: storage.replace_if(uri, b"x", expected="0"),
    ],
)  # fmt: skip
def test_a_dead_endpoint_is_named_soon(s3: str, monkeypatch: pytest.MonkeyPatch, use: Callable[[str], object]) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # nothing listens on the discard port
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"Cannot .* s3://bucket/x"):
        use("s3://bucket/x")
    assert time.monotonic() - start < 20


def test_a_folder_cannot_be_read_as_a_file(tree: str) -> None:
    with pytest.raises(StoragePathError, match="it is a folder"):
        storage.size(tree + "/sub")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "x"), b"")
    with pytest.raises(StorageError, match=r"Cannot write .*/x/y"):
        storage.write_bytes(str(tmp_path / "x" / "y"), b"")


def test_broken_files_are_named(tmp_path: Path) -> None:
    for name, data, read, message in [
        ("x.json", b"{", storage.read_json, "is not JSON"),
        ("x.txt", b"\xff\xfe\x00", storage.read_text, "is not UTF-8"),
        ("x.parquet", b"PAR1 and no more", storage.read_parquet, "is not a readable Parquet file"),
    ]:
        uri = str(tmp_path / name)
        storage.write_bytes(uri, data)
        with pytest.raises(StoragePathError, match=message) as caught:
            read(uri)
        assert uri in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.parquet")
    storage.write_parquet(uri, pa.table({"id": ["a"], "label": ["b"]}))
    with pytest.raises(StoragePathError, match=r"has no column `lable`; it has: id, label\. Did you mean `label`\?"):
        storage.read_parquet(uri, ["id", "lable"])


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(StoragePathError, match="has schema 2; this alray reads schema 1"):
        storage.read_json(uri)
    assert storage.read_json(uri, schema=2) == {"schema": 2}


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


# Settings and processes


def test_configure_sets_what_workers_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")  # so that monkeypatch takes them away again
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    storage.configure("http://127.0.0.1:9000", "eu-west-1")
    storage.configure(None, None)
    assert storage.environment() == {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [("127.0.0.1:9000", "must begin with http"), ("http://me:SECRET@host", "must not hold credentials")],
)
def test_a_bad_endpoint_is_refused(endpoint: str, message: str) -> None:
    with pytest.raises(StoragePathError, match=message) as caught:
        storage.configure(endpoint, None)
    assert "`storage.endpoint`" in str(caught.value) and "SECRET" not in str(caught.value)


def _write_and_read(uri: str) -> tuple[bytes, int]:
    before = storage._build_filesystem.cache_info().misses
    storage.write_bytes(uri, b"from a child")
    return storage.read_bytes(uri), storage._build_filesystem.cache_info().misses - before


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_builds_its_own_clients(root: str, method: str) -> None:
    uri = storage.join(root, "x")
    storage.write_bytes(uri, b"from the parent")
    storage.read_bytes(uri)  # the parent's clients are built
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(_write_and_read, (uri,)).get(timeout=60) == (b"from a child", 1)
    assert storage.read_bytes(uri) == b"from a child"


def test_functions_travel_by_reference() -> None:
    assert pickle.loads(pickle.dumps(storage.read_bytes)) is storage.read_bytes
