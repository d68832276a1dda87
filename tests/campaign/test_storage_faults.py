"""Campaigns on storage that fails: the disk is full, S3 stumbles or is gone, a shard of features is not whole.

Whatever happens ends in one clear error, and the same command goes on to the ledger of a run that nothing disturbed.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import campaigns
import faulty_s3
import pyarrow.parquet as pq
import pytest
import torch
from campaigns import picture_settings

from alray import config
from alray.campaign import Settings, lease, run, status
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import Round
from alray.cli import app
from alray.errors import StorageError
from alray.models import weights

LIVE = ("lease.json", "state.json")
"""Files of a run that are written again; all others are put once."""

FULL = r"the disk is full\. Make room; the same command goes on"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], str]:
    """Return what stands for a command in a process of its own: another one's lease is that of a dead process."""
    count = 0

    def started(_: int) -> str:
        return f"command {count}"

    def go(wanted: Settings) -> str:
        nonlocal count
        count += 1
        return run(wanted).state

    monkeypatch.setattr(lease, "_process_started", started)
    return go


def two_rounds(data: Path, folder: Path | str, **more: Any) -> Settings:
    """Return a campaign of two rounds on features."""
    return campaigns.settings(data, folder, budget={"initial": 12, "per_round": 6, "total": 18}, **more)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the ledgers of runs that nothing disturbed: on features, and on pictures with a fine-tune."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(two_rounds(data, folder / "features"))
    run(campaigns.picture_settings(data, folder / "pictures"))
    found: dict[str, Any] = {name: campaigns.ledger(folder / name) for name in ("features", "pictures")}
    return {**found, "bought": bought(str(folder / "features"))}


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 64 MiB in memory, which `fill` leaves little of."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system may be mounted here: {getattr(error, 'stderr', error)!r}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, left: int) -> Path:
    """Leave `left` bytes of a disk; return the file that takes the rest."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(bytes(free - left))
    return ballast


def asked(folder: Path) -> list[str]:
    """Return every id that was asked for, in order."""
    return [i for f in sorted(folder.glob("asks/*.parquet")) for i in pq.read_table(f)["id"].to_pylist()]


@pytest.mark.parametrize("left", [4096, 40_960, 98_304], ids=lambda n: f"{n // 1024}K")
def test_a_full_disk_of_the_run(
    left: int, data: Path, small_disk: Path, command: Callable[[Settings], str], undisturbed: dict[str, Any]
) -> None:
    wanted = two_rounds(data, small_disk / "run")
    ballast = fill(small_disk, left)
    with pytest.raises(StorageError, match=FULL) as caught:
        command(wanted)
    assert caught.value.exit_code == 1 and str(small_disk / "run") in str(caught.value)
    before = asked(small_disk / "run")
    kept = {file: file.read_bytes() for file in small_disk.glob("run/**/*.*") if file.name not in LIVE}
    assert not [file for file in kept if file.name.startswith(".tmp-") and file.stat().st_size]
    ballast.unlink()
    assert command(wanted) == "done"
    assert all(file.read_bytes() == data for file, data in kept.items())  # what has its name is whole
    found = campaigns.ledger(small_disk / "run")
    assert found == undisturbed["features"]
    assert found["asks"][: len(before)] == before and len(set(found["asks"])) == len(found["asks"])


@pytest.mark.parametrize("left", [0, 8192])
def test_a_full_disk_of_the_features(
    left: int,
    data: Path,
    tmp_path: Path,
    small_disk: Path,
    command: Callable[[Settings], str],
    undisturbed: dict[str, Any],
) -> None:
    raw = campaigns.picture_settings(data, tmp_path / "run").model_dump(mode="json")
    raw["features"]["path"] = str(small_disk / "features")
    ballast = fill(small_disk, left)
    with pytest.raises(StorageError, match=FULL) as caught:
        command(campaigns.parse(raw))
    assert str(small_disk / "features") in str(caught.value)
    ballast.unlink()
    assert command(campaigns.parse(raw)) == "done"
    found = campaigns.ledger(tmp_path / "run")
    assert without_config(found) == without_config(undisturbed["pictures"])


def test_a_full_disk_is_an_exit_code_and_a_sentence(data: Path, small_disk: Path) -> None:
    """No command says that alray is at fault, whoever found the disk full."""
    settings = small_disk.parent / "campaign.yaml"
    settings.write_text(config.dump(two_rounds(data, small_disk / "run")))
    fill(small_disk, 65_536)
    err = io.StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as ended:
        app.main(["run", str(settings)])
    assert ended.value.code == 1
    assert re.search(FULL, err.getvalue()) and "Traceback" not in err.getvalue()


def without_config(found: dict[str, Any]) -> dict[str, Any]:
    """Return a ledger without the digest of settings, in which paths stand."""
    return {**found, "rounds": [{k: v for k, v in one.items() if k != "config"} for one in found["rounds"]]}


@pytest.mark.parametrize("left", [0, 4096])
def test_a_full_temporary_folder(
    left: int,
    data: Path,
    tmp_path: Path,
    small_disk: Path,
    command: Callable[[Settings], str],
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checkpoints are put together there."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    wanted = campaigns.picture_settings(data, tmp_path / "run")
    ballast = fill(small_disk, left)
    with pytest.raises(StorageError, match=FULL) as caught:
        command(wanted)
    assert str(small_disk) in str(caught.value)
    ballast.unlink()
    assert command(wanted) == "done"
    assert without_config(campaigns.ledger(tmp_path / "run")) == without_config(undisturbed["pictures"])


def test_what_a_resume_needs_is_whole_or_not_there(small_disk: Path) -> None:
    """torch itself leaves half of a file, and says nothing of a disk."""
    ballast = fill(small_disk, 8192)
    with pytest.raises(StorageError, match=FULL):
        weights.write(str(small_disk / "resume.pt"), {"weight": torch.zeros(100_000)})
    assert [file.name for file in small_disk.iterdir()] == [ballast.name]


# Shards of features that are not whole


def cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def turn_a_bit(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0x40
    shard.write_bytes(bytes(data))


def shard_of_the_pool(folder: Path) -> Path:
    """Return the larger of the two files of features: the test set has the other one."""
    return max(folder.glob("run-features/*/shard-*.arrow"), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("harm", [cut, turn_a_bit, lambda shard: shard.write_bytes(b"")], ids=["cut", "bit", "empty"])
def test_a_shard_that_is_not_whole_is_named(
    harm: Callable[[Path], None], data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    wanted = picture_settings(data, tmp_path / "run")
    run(wanted, after_round=lambda number: False)
    shard = shard_of_the_pool(tmp_path)
    harm(shard)
    before = asked(tmp_path / "run")
    with pytest.raises(StorageError, match=r"sha256 is .* and was .* Delete that file and run") as caught:
        run(wanted)
    assert str(shard) in str(caught.value) and asked(tmp_path / "run") == before
    shard.unlink()  # as the message says; the same command computes it too
    run(wanted)
    assert without_config(campaigns.ledger(tmp_path / "run")) == without_config(undisturbed["pictures"])


def test_a_shard_that_the_manifest_has_and_the_disk_has_not_is_computed(
    data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    wanted = picture_settings(data, tmp_path / "run")
    run(wanted, after_round=lambda number: False)
    shard = shard_of_the_pool(tmp_path)
    whole = shard.read_bytes()
    shard.unlink()
    run(wanted)
    assert shard.read_bytes() == whole
    assert without_config(campaigns.ledger(tmp_path / "run")) == without_config(undisturbed["pictures"])


@pytest.mark.parametrize("harm", [cut, lambda file: file.write_text('{"schema": 1}')], ids=["cut", "emptied"])
def test_a_manifest_that_is_not_whole_is_named(
    harm: Callable[[Path], None], data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    wanted = picture_settings(data, tmp_path / "run")
    run(wanted, after_round=lambda number: False)
    manifest = min(tmp_path.glob("run-features/*/manifest-*.json"))  # the pool's, or the test set's
    harm(manifest)
    with pytest.raises(StorageError, match=r"cannot be read as a manifest of features.*Delete that file") as caught:
        run(wanted)
    assert str(manifest) in str(caught.value)
    manifest.unlink()
    run(wanted)
    assert without_config(campaigns.ledger(tmp_path / "run")) == without_config(undisturbed["pictures"])


# S3 that stumbles, and S3 that is gone

GONE = """
import sys, types, botocore.retryhandler
from alray.cli.app import main
from alray.storage import clients
clients.ATTEMPTS, clients.PYARROW_RETRIES = 2, 1
botocore.retryhandler.random = types.SimpleNamespace(random=lambda: 0.01)
main(sys.argv[1:])
"""
"""`alray` with short pauses."""


def bought(folder: str) -> list[tuple[str, int, float]]:
    """Return what each round of a run on any storage picked, bought and paid."""
    ledger = Ledger(folder)
    records = [Round(ledger, n).json("round.json") for n in range(status(folder).rounds)]
    return [(one["picks_digest"], one["labels"], one["label_dollars"]) for one in records]


def test_s3_that_stumbles_disturbs_nothing(data: Path, s3: str, undisturbed: dict[str, Any]) -> None:
    """Of every kind of request the first two fail, each in its own way, and one in the middle of the run."""
    remote = f"{s3}/{uuid.uuid4().hex}/run"
    with faulty_s3.between(pause_s=0.02) as proxy:
        faults = [
            proxy.fail(f"{verb} .*{what}", how, times=2)  # type: ignore[arg-type]
            for verb in ("GET", "HEAD", "PUT")
            for what, how in ((r"lease\.json$", "SlowDown"), ("picks.parquet$", "cut"), ("round.json$", "lost"))
        ] + [proxy.fail("list-type=2.*costs", "500", times=2)]
        done = run(two_rounds(data, remote))
    assert (done.state, done.labels) == ("done", 18)
    assert sum(len(fault.at) >= 3 for fault in faults) >= 6, [(f.which, len(f.at)) for f in faults]
    assert bought(remote) == undisturbed["bought"]


def test_s3_that_is_gone_ends_the_command_and_the_same_command_goes_on(
    data: Path, s3: str, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    remote = f"{s3}/{uuid.uuid4().hex}/run"
    settings = tmp_path / "campaign.yaml"
    settings.write_text(config.dump(two_rounds(data, remote)))
    with faulty_s3.between() as proxy:
        picks = proxy.fail("PUT .*/rounds/0001/picks", "500")
        picks.then = lambda: proxy.gone.set()
        words = [sys.executable, "-c", GONE, "run", str(settings)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1, ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("alray: ")]
    assert len(said) == 1 and "Traceback" not in ended.stderr
    assert said[0].startswith(f"alray: Cannot write {remote}/rounds/0001/picks.parquet: ")
    assert "the same command goes on when storage answers again" in said[0]
    assert run(two_rounds(data, remote)).state == "done"
    assert bought(remote) == undisturbed["bought"]
    ids = Ledger(remote).asks()
    assert len({ask.id for ask in ids}) == len(ids) == 18
