"""Hostile inputs, one an entry: what is given, who reads it, and the message that it must get.

Each is really given to alray. Payloads that would run code write a file, `MARKER`, in the folder of the attempt.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import logging
import os
import pickle
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import builders
import campaigns
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from alray import config, storage
from alray.campaign import Settings, run, status
from alray.cli import app, show
from alray.errors import AlrayError
from alray.features import store
from alray.labelling import read_labels
from alray.log import Lines
from alray.models import Head, weights
from alray.pool import BadRow, Pool, PoolConfig, Quarantine, images
from alray.reports.tables import escaped as in_markdown
from alray.runtime import RuntimeConfig, ray_cluster
from alray.selection import Picks
from alray.table import as_ids

MARKER = "pwned"

Attempt = Callable[[Path], object]


class Case(NamedTuple):
    """One hostile input; `said` is found in the message that it gets, or in what comes of it."""

    surface: str
    given: str
    attempt: Attempt
    said: str

    @property
    def name(self) -> str:
        """A name for a list of tests."""
        return re.sub(r"\W+", "-", f"{self.surface} {self.given}").strip("-")[:90]

    def message(self, folder: Path) -> str:
        """Try it in an empty folder, and return what it got: an error's text, or what was made of it."""
        try:
            return str(self.attempt(folder))
        except AlrayError as error:
            return f"{type(error).__name__}: {error}"


CASES: list[Case] = []


def case(surface: str, given: str, said: str) -> Callable[[Attempt], Attempt]:
    """Add an attempt to the list."""

    def add(attempt: Attempt) -> Attempt:
        CASES.append(Case(surface, given, attempt, said))
        return attempt

    return add


# Clusters


def joined(address: str | None, **environment: str) -> Attempt:
    """Prepare to join the cluster at an address, in an environment without any other variable of Ray's."""

    def attempt(folder: Path) -> str:
        before = dict(os.environ)
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            del os.environ[name]
        home = {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
        os.environ.update(home | {n: v.format(folder=folder) for n, v in environment.items()})
        try:
            ray_cluster.prepare_environment(RuntimeConfig(address=address))
            return "accepted"
        finally:
            os.environ.clear()
            os.environ.update(before)

    return attempt


BEYOND = r"ConfigError: `runtime\.address` is .*, beyond loopback, and RAY_AUTH_MODE is not `token`"
for address in (
    "10.0.0.7:6379", "head.example:6379", "ray://head.example:10001", "ray://10.0.0.7:10001", "0.0.0.0:6379",
    "[2001:db8::1]:6379", "[::]:6379", "ray://[2001:db8::1]:10001", "127.0.0.1.example.com:6379",
    "localhost.example.com:6379", "2130706433:6379", "auto",
):  # fmt: skip
    case("cluster", f"`runtime.address={address}`, no token", BEYOND)(joined(address))
for found in ("10.0.0.7:6379", "ray://head.example:10001", "[2001:db8::1]:6379"):
    case("cluster", f"`runtime.address=auto`, RAY_ADDRESS={found}", BEYOND)(joined("auto", RAY_ADDRESS=found))
case("cluster", "the same, RAY_AUTH_MODE=disabled", BEYOND)(joined("10.0.0.7:6379", RAY_AUTH_MODE="disabled"))
NO_TOKEN = r"ConfigError: RAY_AUTH_MODE is `token` and there is no token: RAY_AUTH_TOKEN_PATH {}.*mode 0600"
case("cluster", "RAY_AUTH_MODE=token, no token anywhere", NO_TOKEN.format("is not set"))(
    joined("10.0.0.7:6379", RAY_AUTH_MODE="token")
)
case("cluster", "RAY_AUTH_MODE=token, RAY_AUTH_TOKEN of blanks", NO_TOKEN.format("is not set"))(
    joined("10.0.0.7:6379", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="  ")
)
case("cluster", "RAY_AUTH_TOKEN_PATH to a file that is not there", NO_TOKEN.format("names .*, which has none"))(
    joined("127.0.0.1:6379", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH="{folder}/none")
)
for variable in ray_cluster.UNPICKLES:
    case("cluster", f"{variable}=1", rf"ConfigError: {variable} is set: Ray would run code .* Unset it\.")(
        joined(None, **{variable: "1"})
    )


# Token files


def token(spoil: Callable[[Path], object]) -> Attempt:
    """Spoil the file of the token of local clusters, and ask for it."""

    def attempt(folder: Path) -> str:
        path = folder / "state" / "alray" / "ray-token"
        path.parent.mkdir(parents=True)
        os.close(os.open(path, os.O_CREAT, 0o600))
        path.write_text("0" * 64)
        spoil(path)
        return str(joined(None)(folder))

    return attempt


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


REMADE = r"ConfigError: The token of local clusters, .*, {}\. Delete it; the next command writes another\."
case("token file", "mode 0644", REMADE.format(r"can be read by other users \(mode 0644\)"))(
    token(lambda path: path.chmod(0o644))
)
case("token file", "a symbolic link", REMADE.format("is a link to '.*elsewhere'"))(token(linked))
case("token file", "a link to nothing", REMADE.format("is a link to 'nowhere'"))(
    token(lambda path: (path.unlink(), path.symlink_to("nowhere")))
)
case("token file", "a folder", REMADE.format("is no file"))(token(lambda path: (path.unlink(), path.mkdir())))
case("token file", "empty", REMADE.format("is empty"))(token(lambda path: path.write_text("")))
if os.getuid() == 0:
    case("token file", "of another user", REMADE.format("belongs to user 12345 and not to 0"))(
        token(lambda path: os.chown(path, 12345, 12345))
    )


# Pickles


class Bomb:
    """Whoever unpickles this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.marker = str(folder / MARKER)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


def bomb(folder: Path) -> bytes:
    """Return a pickle that makes the marker."""
    return pickle.dumps(Bomb(folder), protocol=2)


def written(folder: Path, name: str, data: bytes) -> str:
    """Write a file; return its path."""
    (folder / name).write_bytes(data)
    return str(folder / name)


@case(
    "pickle",
    "weights.pt is a pickle",
    r"ModelError: .*cannot be read as plain weights: .*refused because reading it runs",
)
def _(folder: Path) -> object:
    return weights.read(written(folder, "weights.pt", bomb(folder)))


@case("pickle", "weights.pt by torch.save of a whole object", r"ModelError: .*cannot be read as plain weights")
def _(folder: Path) -> object:
    torch.save({"weights": Bomb(folder)}, folder / "weights.pt")
    return weights.read(str(folder / "weights.pt"))


@case(
    "pickle", "a checkpoint's state by torch.save of an object", r"ModelError: .*is not the checkpoint that alray wrote"
)
def _(folder: Path) -> object:
    torch.save({"progress": Bomb(folder)}, folder / "resume.pt")
    return weights.read_state(str(folder / "resume.pt"))


@case("pickle", "weights.safetensors is a pickle", r"ModelError: .*is not a readable safetensors file")
def _(folder: Path) -> object:
    return weights.read(written(folder, "weights.safetensors", bomb(folder)))


@case("pickle", "head.safetensors is a pickle", r"ModelError: .*is not a readable safetensors file")
def _(folder: Path) -> object:
    return Head.load(written(folder, "head.safetensors", bomb(folder)))


@case("pickle", "a shard of features is a pickle", r"StorageError: .*cannot be read as a feature file")
def _(folder: Path) -> object:
    return store.read_batch(written(folder, "shard.arrow", bomb(folder)))


def disguised(folder: Path, name: bytes, column: pa.Array) -> pa.Field:
    """Return a field that asks its reader to unpickle its metadata; Ray Data brings readers for types of its own."""
    if name.startswith(b"ray."):
        importlib.import_module("ray.data")
    asks = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": bomb(folder)}
    return pa.field("features", column.type, metadata=asks)


EXTENSIONS = (b"arrow.py_extension_type", b"ray.data.arrow_pickled_object", b"ray.data.arrow_tensor_v2")


def extension_in_parquet(name: bytes) -> Attempt:
    def attempt(folder: Path) -> object:
        column = pa.array([bomb(folder)] * 3)
        table = pa.Table.from_arrays(
            [pa.array(["a", "b", "c"]), column],
            schema=pa.schema([pa.field("id", pa.string()), disguised(folder, name, column)]),
        )
        pq.write_table(table, folder / "pool.parquet")
        return Pool.open(str(folder / "pool.parquet"))

    return attempt


def extension_in_arrow(name: bytes) -> Attempt:
    def attempt(folder: Path) -> object:
        column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(6, np.float16)), 2)
        meta = {b"alray": json.dumps({"schema": 1, "version": "v", "key": "k"}).encode()}
        schema = pa.schema([disguised(folder, name, column)], metadata=meta)
        with pa.ipc.new_file(str(folder / "shard.arrow"), schema) as out:
            out.write_batch(pa.RecordBatch.from_arrays([column], schema=schema))
        batch = store.read_batch(str(folder / "shard.arrow"))
        store.check_identity(batch, "shard.arrow", version="another", key="k")
        return batch

    return attempt


for extension in EXTENSIONS:
    in_pool, in_shard = f"pool.parquet with a column of type {extension.decode()}", "shard.arrow with one"
    case("pickle", in_pool, r"PoolError: .*(`features` is |type of a column cannot be read)")(
        extension_in_parquet(extension)
    )
    case("pickle", f"{in_shard} of type {extension.decode()}", r"StorageError: .*(of version 'v'|cannot be read)")(
        extension_in_arrow(extension)
    )


@case(
    "pickle",
    "a picture of the pool is a pickle",
    r"the bytes are no picture that alray reads .* begin with b'\\x80\\x02",
)
def _(folder: Path) -> object:
    return reason(bomb(folder))


@case("pickle", "a picture of the pool is a .npy with objects", r"the bytes are no picture that alray reads .*NUMPY")
def _(folder: Path) -> object:
    out = io.BytesIO()
    np.save(out, np.array([Bomb(folder)], dtype=object), allow_pickle=True)
    return reason(out.getvalue())


@case("pickle", "labels.parquet is a pickle", r"LabelsError: .*cannot be read as Parquet")
def _(folder: Path) -> object:
    return read_labels(written(folder, "labels.parquet", bomb(folder)))


@case("pickle", "a JSON file is a pickle", r"StoragePathError: .*is not (UTF-8|JSON)")
def _(folder: Path) -> object:
    return storage.read_json(written(folder, "round.json", bomb(folder)))


@case("pickle", "settings with !!python/object/apply", r"ConfigError: .*is not YAML.*could not determine a constructor")
def _(folder: Path) -> object:
    return settings_of(folder, f"run: !!python/object/apply:os.mkdir ['{folder / MARKER}']")


# Pictures


def reason(data: bytes) -> str:
    """Return why a picture is quarantined."""
    try:
        return f"a picture of {images.decode(data).size}"
    except images.BadImage as error:
        return f"quarantined: {error}"


def png(width: int, height: int) -> bytes:
    """Return a small PNG that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(999))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def gif(width: int, height: int) -> bytes:
    """Return the header of a GIF of this size."""
    screen = struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6)
    return b"GIF89a" + screen + b"," + struct.pack("<HHHH", 0, 0, width, height) + b"\0\x02\x02\x44\x01\0;"


PICTURE = builders.picture(0, 64)[0]
NO_PICTURE = r"quarantined: the bytes are no picture that alray reads \(JPEG, PNG, WEBP, GIF, BMP, TIFF\)"
for what, data, said in (
    (
        "PNG of 200 bytes that says 100,000 × 100,000",
        png(100_000, 100_000),
        "quarantined: the picture has too many pixels",
    ),
    (
        "PNG that says 8,001 × 8,001",
        png(8001, 8001),
        "quarantined: the picture has 8,001 × 8,001 pixels, more than 64,000",
    ),
    ("GIF that says 65,535 × 65,535", gif(65535, 65535), "quarantined: .*pixels"),
    (
        "65 MiB of bytes",
        b"\xff\xd8\xff" + bytes(65 * 2**20),
        "quarantined: the picture has 68,157,443 bytes, more than",
    ),
    ("no bytes", b"", r"quarantined: the picture is empty \(0 bytes\)"),
    ("SVG with a script", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", NO_PICTURE),
    (
        "SVG with an entity of a file",
        b"<!DOCTYPE s [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
        NO_PICTURE,
    ),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n", NO_PICTURE),
    ("PDF", b"%PDF-1.7\n1 0 obj\n", NO_PICTURE),
    ("ZIP", b"PK\x03\x04" + bytes(60), NO_PICTURE),
    ("an ELF program", b"\x7fELF" + bytes(60), NO_PICTURE),
    ("HTML", b"<html><script>alert(1)</script>", NO_PICTURE),
    ("a PNG cut in the middle", PICTURE[: len(PICTURE) // 2], "quarantined: the picture is damaged or cut short"),
    (
        "a polyglot: a whole PNG, and a ZIP and a script behind it",
        PICTURE + b"PK\x03\x04<script>",
        r"a picture of \(64, 64\)",
    ),
    ("a polyglot: a script, and a whole PNG behind it", b"<script>1</script>" + PICTURE, NO_PICTURE),
):
    case("picture", what, said)(lambda folder, data=data: reason(data))


@case("picture", "a row of such pictures in a pool of three", r"QuarantineError: 2 of 3 rows .*cannot be read; "
      r"`pool\.max_quarantine` allows 1\.0%.*Repair or remove these rows")  # fmt: skip
def _(folder: Path) -> object:
    quarantine = Quarantine()
    for row, data in enumerate([PICTURE, png(100_000, 100_000), b"<svg/>"]):
        if (why := reason(data)).startswith("quarantined: "):
            quarantine.add(f"row-{row}", 0, row, why.removeprefix("quarantined: "))
    return quarantine.check(3, PoolConfig(path="x").max_quarantine)


# Paths


def row(cell: str, **more: Any) -> Attempt:
    """Let a pool's `uri` column point somewhere; a secret lies in the folder above the pool's."""

    def attempt(folder: Path) -> object:
        data = folder / "pool"
        data.mkdir()
        (folder / "secret").write_bytes(b"the secret")
        (data / "link").symlink_to(folder / "secret")
        (data / "up").symlink_to(folder)
        (data / "circle").symlink_to(data / "circle")
        (data / "here.png").write_bytes(b"here")
        text = cell.format(folder=folder)
        path = builders.parquet(data / "pool.parquet", {"id": ["a"], "uri": [text]})
        ((_, found),) = Pool.open(PoolConfig(path=path, **more)).shards[0].images()
        return f"quarantined: {found.reason}" if isinstance(found, BadRow) else f"read: {found!r}"

    return attempt


OUT = r"quarantined: `uri` .* leaves the folder of its Parquet file"
OTHER = r"quarantined: cannot be read: .*alray does not read `{}://`"
for cell, said in (
    ("../secret", OUT), ("../../../../../../etc/passwd", OUT), ("/etc/passwd", OUT), ("{folder}/secret", OUT),
    ("{folder}/pool/../secret", OUT), ("file:///etc/passwd", OUT), ("file://localhost/etc/passwd", OUT),
    ("file://{folder}/pool/%2e%2e/secret", OUT), ("link", OUT), ("up/secret", OUT), ("~/.ssh/id_rsa", "does not exist"),
    ("circle", r"quarantined: .*(does not exist|symbolic|is no file)"),
    ("here.png\0/etc/passwd", "quarantined: .*null character"),
    ("http://169.254.169.254/latest/meta-data/", OTHER.format("http")), ("https://host/a.png", OTHER.format("https")),
    ("gopher://127.0.0.1:6379/_FLUSHALL", OTHER.format("gopher")), ("ftp://host/a.png", OTHER.format("ftp")),
    ("file://host/share/a.png", "quarantined: .*absolute path of this machine"),
    ("data://image/png;base64,AA", OTHER.format("data")),
    ("s3://bucket/../other/x.png", "quarantined: .*`..` has no meaning in a bucket"),
    ("s3://KEY:SECRET@bucket/x.png", r"quarantined: .*\*\*\*@bucket.*must not hold credentials"),
    ("s3://bucket/x.png?endpoint_override=http://evil", "quarantined: .*settings in a URI are not read"),
    ("/dev/zero", OUT), ("here.png", "read: b'here'"), ("{folder}/pool/here.png", "read: b'here'"),
):  # fmt: skip
    case("`uri` column", repr(cell), said)(row(cell))


@case("`uri` column", "an absolute path into a folder of `pool.roots`", "read: b'the secret'")
def _(folder: Path) -> object:
    return row("{folder}/secret", roots=[str(folder)])(folder)


def settings_of(folder: Path, text: str, *words: str) -> object:
    """Read settings from a file of this text."""
    (folder / "campaign.yaml").write_text(text, encoding="utf-8")
    return config.load(str(folder / "campaign.yaml"), words, Settings)


TWO_ROUNDS = {"initial": 12, "per_round": 6, "total": 18}


@functools.cache
def campaign() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """Run two rounds of a small campaign once; return its folder, and what takes it away in the end."""
    owner = tempfile.TemporaryDirectory()
    folder = Path(owner.name)
    campaigns.write_pool(folder)
    run(campaigns.settings(folder, folder / "run", budget=TWO_ROUNDS))
    return folder, owner


def begun(folder: Path) -> Path:
    """Return a copy of that run's folder."""
    return Path(shutil.copytree(campaign()[0] / "run", folder / "run"))


def edited(file: str, change: Callable[[Any], object]) -> Attempt:
    """Edit a JSON file of a run, and go on with it."""

    def attempt(folder: Path) -> object:
        path = begun(folder) / file
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
        wanted = campaigns.settings(campaign()[0], folder / "run", budget={**TWO_ROUNDS, "total": 21})
        return run(wanted).state

    return attempt


ELSEWHERE = r"StoragePathError: '\.\.' names nothing inside '.*/run'\. Give a relative path without `\.\.`"
for file, what, change, said in (
    ("rounds/0000/round.json", "answers of ../../etc", lambda r: r["answers"].append("../../etc/passwd"), ELSEWHERE),
    ("rounds/0000/round.json", "a piece of ../..", lambda r: r["sha256"].update({"../../x": "0"}), ELSEWHERE),
    ("rounds/0000/round.json", "another digest of its picks", lambda r: r["sha256"].update({"picks.parquet": "0" * 64}),
     r"LedgerError: .*picks\.parquet is not the file that round 0 ended with"),
    ("pool/0001.json", "a shard in /etc/passwd", lambda r: r["shards"][0].update({"uri": "/etc/passwd"}),
     r"PoolError: /etc/passwd was in the pool and is not any more"),
    ("pool/0001.json", "shards of a field `__class__`", lambda r: r["shards"][0].update({"__class__": "x"}),
     r"PoolError: The pool manifest is damaged"),
    ("run.json", "another name", lambda r: r.update({"name": "../../another"}),
     r"LedgerError: .*its request ids do not belong to this run"),
    ("run.json", "schema 99", lambda r: r.update({"schema": 99}), r"LedgerError: .*has schema 99; this alray reads"),
    ("lease.json", "a field `__class__`", lambda r: r.update({"__class__": "x"}), r"LedgerError: .*is not a lease"),
):  # fmt: skip
    case("ledger", f"{file} edited: {what}", said)(edited(file, change))


def named(names: str) -> Attempt:
    """Run a campaign whose rows and classes have such names; list what was written beside its folder."""

    def attempt(folder: Path) -> object:
        campaigns.write_pool(folder)
        for file in folder.glob("*.parquet"):
            table = pq.read_table(file)
            for column in {"id", "label"} & set(table.column_names):
                texts = [f"{names}{text}" for text in table[column].to_pylist()]
                table = table.set_column(table.column_names.index(column), column, pa.array(texts))
            pq.write_table(table, file)
        before = {path for path in folder.rglob("*") if "run" not in path.parts}
        (folder / "in").mkdir()
        done = run(campaigns.settings(folder, folder / "in" / "run", "stopping.rounds=1"))
        after = {path for path in folder.rglob("*") if not path.is_relative_to(folder / "in")}
        odd = [p.name for p in (folder / "in").rglob("*") if not re.fullmatch(r"[\w.-]+", p.name)]
        return f"{done.state}; files elsewhere: {sorted(after - before)}; odd names: {odd}"

    return attempt


for names in ("../../x-", "/etc/", "a\0b", "=cmd()|", "<script>", "\x1b[2J", "CON:", "{0.__class__}", "%s%n"):
    case("ids and classes", f"they begin with {names!r}", r"done; files elsewhere: \[\]; odd names: \[\]")(named(names))


@case("ids and classes", "classes with a line break in them", "LabelsError: .*labels with a line break in them")
def _(folder: Path) -> object:
    return named("a\nb")(folder)


# Spreadsheets, Markdown, terminals


def through_csv(text: str) -> Attempt:
    """Write an id to a CSV file of picks and read it again, as picks and as labels."""

    def attempt(folder: Path) -> object:
        picks = Picks(as_ids([text, "other"]), np.array([1, 0], np.float32), ("strategy", "fill"))
        picks.write(str(folder / "picks.csv"))
        again = Picks.read(str(folder / "picks.csv"))
        cell = (folder / "picks.csv").read_bytes().split(b"\n", 1)[1].lstrip(b'"')
        rows = (folder / "picks.csv").read_bytes().replace(b"reason", b"label", 1)
        labels = read_labels(written(folder, "labels.csv", rows)) if not set(text) & set("\r\n") else None
        same = list(again.ids) == [text, "other"] and (labels is None or labels.ids == [text, "other"])
        runs = cell[:1] in (b"=", b"+", b"-", b"@", b"\t", b"\r")
        return f"read back {'unchanged' if same else 'CHANGED'}, {'RUN' if runs else 'not run'}: {cell[:12]!r}"

    return attempt


for text in (
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''-1",
    "'plain",
    'a"=1',
    "a,b",
    "a\nb",
    "a\rb",
):
    case("CSV", f"the id {text!r}", "read back unchanged, not run")(through_csv(text))
for text, said in (
    ("<script>alert(1)</script>", r"^&lt;script>alert\(1\)&lt;/script>$"),
    ("<img src=x onerror=alert(1)>", r"^&lt;img src"),
    ("a|b\nc", r"^a\\\|b c$"),
):
    case("Markdown", f"a group of runs named {text!r}", said)(lambda folder, text=text: in_markdown(text))


def logged(text: str) -> Attempt:
    """Log an id as text."""

    def attempt(folder: Path) -> object:
        record = logging.LogRecord("alray.pool", logging.WARNING, "", 0, "`%s` cannot be read", (text,), None)
        return ascii(Lines("%(levelname)s %(name)s: %(message)s").format(record))

    return attempt


def shown(text: str) -> Attempt:
    """Print a fact and a table with an id in them, as commands do."""

    def attempt(folder: Path) -> object:
        out = io.StringIO()
        with redirect_stdout(out):
            show.pairs({"id": text})
            show.table(["id"], [[text]])
        return ascii(out.getvalue())

    return attempt


def failed(text: str) -> Attempt:
    """End a command with an error that has an id in it."""

    def attempt(folder: Path) -> object:
        err = io.StringIO()
        with redirect_stderr(err):
            app._say(f"The id `{text}` stands twice.", 2)
        return ascii(err.getvalue())

    return attempt


FORGED = "a\n2026-11-22 10:00:00 INFO alray: all labels are paid"
for text, in_log, in_table, in_error in (
    ("\x1b[2J\x1b]0;title\x07", r"`\\\\x1b\[2J\\\\x1b\]0;title\\\\x07`", r"id  \\\\x1b\[2J", r"`\\\\x1b\[2J"),
    ("\x9b31m", r"`\\\\x9b31m`", r"id  \\\\x9b31m", r"`\\\\x9b31m`"),
    ("a\rb", r"`a\\\\rb`", r"id  a\\\\rb", r"`a\\\\rb`"),
    ("\u202etxt.exe", r"`\\\\u202etxt", r"id  \\\\u202etxt", r"`\\\\u202etxt"),
    (FORGED, r"`a\\\\n2026-11-22 10:00:00 INFO", r"id  a\\n  2026", r"`a\\n  2026-11-22"),
    ("[red]x[/]", r"`\[red\]x\[/\]`", r"id  \[red\]x\[/\].*\[red\]x\[/\]", r"`\[red\]x\[/\]`"),
):
    case("terminal", f"{text!r} in a log line", in_log)(logged(text))
    case("terminal", f"{text!r} in what a command prints", in_table)(shown(text))
    case("terminal", f"{text!r} in an error", in_error)(failed(text))


@case("terminal", "an escape in the message of state.json, by `alray status`", r"failed: \\\\x1b\[2Jwiped")
def _(folder: Path) -> object:
    path = begun(folder) / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "failed", "message": "\x1b[2Jwiped"}))
    out = io.StringIO()
    from alray.cli.status import print_rounds

    with redirect_stdout(out):
        print_rounds(status(str(folder / "run")))
    assert "\x1b" not in out.getvalue()
    return ascii(out.getvalue().splitlines()[-1])


# Settings

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
for what, text, said in (
    (
        "a billion laughs by anchors",
        LAUGHS,
        "is not YAML that alray reads: it has more than 100,000 values, aliases counted",
    ),
    ("a list that holds itself", "run: &a [*a]", "aliases counted"),
    ("lists nested 5,000 deep", "run: " + "[" * 5000 + "]" * 5000, "it is nested too deeply"),
    ("5 MB", "run: " + "x" * 5_000_000, "it has 5,000,005 characters, more than 4,194,304"),
    ("a number of 5,000 digits", "seed: " + "9" * 5000, "is not YAML that alray reads: Exceeds the limit"),
    ("a date that there is not", "run: 2026-13-99", "is not YAML that alray reads: month must be in 1..12"),
    ("a key given twice", "run: a\nrun: b", "the key `run` was given on line 1 too"),
    ("binary", "run: \0", "is not YAML that alray reads: .*(special characters|unacceptable)"),
    ("a list at its top", "- run", "holds a list at its top level"),
):
    case("settings", what, f"ConfigError: .*{said}")(lambda folder, text=text: settings_of(folder, text))
for word, said in (
    ("run", "run: is not a setting"), ("=x", "=x: is not a setting"), ("a..b=1", "a..b=1: is not a setting"),
    ("seed=[", r"seed: '\[' is not YAML"), ("seed=" + "9" * 5000, "seed: .* is not YAML: Exceeds the limit"),
    ("run=!!python/object/apply:os.system ['id']", "could not determine a constructor"),
    ("__class__.__init__=1", "__class__"), ("run.x=1", "run.x: `run` is a list or a single value"),
    ("seed=" + "[" * 3000, "nested too deeply"),
    ("pool={a: &a [*a]}", "aliases counted"),
    ("runtime.address=127.0.0.1@head.example:10001", "expected auto, local, host:port or ray://host:port"),
):  # fmt: skip
    case("settings", f"the word {word[:60]}", rf"ConfigError: [\s\S]*{said}")(
        lambda folder, word=word: settings_of(folder, "run: /x", word)
    )
