"""`alray check`: whether this machine and a campaign's settings are fit to run, and how to mend what is not."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from packaging.requirements import Requirement

from alray import storage
from alray.campaign import material, opening
from alray.campaign.ledger import Ledger
from alray.campaign.settings import Settings
from alray.cli.settings import load
from alray.errors import AlrayError, LabelsError
from alray.features.build import describe
from alray.labelling import Labels, read_labels
from alray.log import printable
from alray.pool import Pool
from alray.runtime import in_job, open_runtime
from alray.table import Ids
from alray.training import RECIPES

ENGINES = ("torch", "torchvision", "ray", "pyarrow")
GIB = 2**30
DISK_BYTES = GIB  # a round writes features, a checkpoint and logs; less than this ends in the middle of one
FULL = 0.95  # Ray refuses to spill to a disk that is fuller than this
EXAMPLES = 5


class Finding(NamedTuple):
    """One line of the answer. A `wrong` one says in `text` how to mend it."""

    state: str  # ok | note | wrong
    name: str
    text: str


def check(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="YAML file of a campaign.")] = None,
    words: Annotated[list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings to change.")] = None,
) -> None:
    """Say whether this machine and a campaign's settings are fit to run, and how to mend what is not."""
    wrong = 0
    for found in _machine():
        wrong += _print(found)
    if config is not None:
        for found in _campaign(config, words or []):
            wrong += _print(found)
    print("All is well." if not wrong else f"{wrong} thing(s) to mend.")
    raise typer.Exit(2 if wrong else 0)


def _print(found: Finding) -> bool:
    first, *more = printable(found.text).splitlines() or [""]
    print(f"{found.state:<6} {found.name:<12} {first}", *(" " * 20 + line for line in more), sep="\n", flush=True)
    return found.state == "wrong"


def _tried(name: str, do: Callable[[], str]) -> Finding:
    """Return what `do` says, or the error that it raises as something wrong."""
    try:
        return Finding("ok", name, do())
    except AlrayError as error:
        return Finding("wrong", name, str(error))


# The machine


def _machine() -> Iterator[Finding]:
    yield _python()
    wanted = _wanted()
    for name in ENGINES:
        yield _engine(name, wanted.get(name))
    yield _cuda()
    yield _disk("temporary", Path(tempfile.gettempdir()))
    yield _shared_memory()


def _python() -> Finding:
    state = "ok" if sys.version_info >= (3, 11) else "wrong"
    return Finding(state, "python", platform.python_version() + ("" if state == "ok" else ": install 3.11 or newer"))


def _wanted() -> dict[str, Requirement]:
    """Return what alray's own metadata asks of each package; nothing where alray is not installed as a package."""
    try:
        found = [Requirement(text) for text in metadata.requires("alray") or []]
    except metadata.PackageNotFoundError:
        return {}
    return {r.name: r for r in found if r.marker is None}


def _engine(name: str, wanted: Requirement | None) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding("wrong", name, f'not installed: pip install "{wanted or name}"')
    if wanted and not wanted.specifier.contains(version, prereleases=True):
        return Finding("wrong", name, f'{version}, which alray is not made for: pip install "{wanted}"')
    return Finding("ok", name, version)


def _cuda() -> Finding:
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        return Finding("note", "cuda", f"no GPU that torch can use ({built}): everything runs on the CPU")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Finding("ok", "cuda", f"{torch.version.cuda}: {names}")


def _disk(name: str, folder: Path) -> Finding:
    standing = next(p for p in [folder, *folder.parents] if p.exists())
    use = shutil.disk_usage(standing)
    text = f"{use.free / GIB:.1f} GiB free under {standing}"
    if use.free < DISK_BYTES:
        return Finding("wrong", name, f"{text}: make room, at least {DISK_BYTES / GIB:.0f} GiB")
    if use.free < (1 - FULL) * use.total:
        return Finding("note", name, f"{text}, which is over {FULL:.0%} full: Ray will not spill to it")
    return Finding("ok", name, text)


def _shared_memory() -> Finding:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding(
            "note", "shared mem.", "no /dev/shm here: Ray keeps its object store under /tmp, which is slower"
        )
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.1f} GiB free in /dev/shm"
    if free < GIB:
        return Finding("note", "shared mem.", f"{text}: Ray falls back to /tmp; in a container give --shm-size=2g")
    return Finding("ok", "shared mem.", text)


# A campaign


def _campaign(config: str, words: list[str]) -> Iterator[Finding]:
    try:
        settings = load(config, words)
    except AlrayError as error:
        yield Finding("wrong", "settings", str(error))
        return
    yield Finding("ok", "settings", f"{config}: {_told(settings)}")
    yield from _places(settings)
    try:
        pool = Pool.open(settings.pool)
    except AlrayError as error:
        yield Finding("wrong", "pool", str(error))
    else:
        yield Finding("ok", "pool", repr(pool))
        yield from _rows(settings, pool)
    yield _tried("runtime", lambda: _runtime(settings))


def _told(settings: Settings) -> str:
    switch = f" with the switch {settings.switch.name}" if settings.regime == "asvp" else ""
    return f"{settings.strategy.name}, {settings.regime}{switch}, {settings.labeller.name}"


def _places(settings: Settings) -> Iterator[Finding]:
    if in_job():
        yield _tried("ray job", lambda: _lasting(settings))
    for name, folder in (("run", settings.run), ("features", settings.features.path)):
        if folder is not None:
            yield _tried(name, lambda folder=folder: _writable(folder))  # type: ignore[misc]
            if local := storage.local_path(folder):
                yield _disk(name, local)


def _lasting(settings: Settings) -> str:
    opening.refuse_fleeting(settings)
    return "nothing is written into the job's working folder"


def _writable(folder: str) -> str:
    """Write, read back and delete a small file; leave no new folder behind."""
    local = storage.local_path(folder)
    new = [p for p in [local, *local.parents] if not p.exists()] if local else []
    probe = storage.join(folder, "alray-check")
    storage.write_bytes(probe, b"alray")
    storage.read_bytes(probe)
    storage.delete(probe)
    for made in new:
        made.rmdir()
    return f"{folder} can be written"


def _rows(settings: Settings, pool: Pool) -> Iterator[Finding]:
    test = None
    if settings.test:
        config, classes = settings.test, settings.classes
        yield _tried("test", lambda: f"{len(material.open_test(config, classes).labels):,} rows, each with a label")
        test = _quietly(lambda: material.test_ids(Pool.open(config.path)))
    yield _tried("ids", lambda: _unique(pool, test))
    if settings.labels:
        uri = settings.labels
        yield _tried("labels", lambda: _known(pool, uri, "labels", settings.classes))
    if (answers := getattr(settings.labeller, "path", None)) is not None:
        yield _tried("labeller", lambda: _known(pool, answers, "labeller.path", settings.classes, whole=True))
    if pool.kind != "features":
        yield _tried("backbone", lambda: _backbone(settings))
    yield _tried("recipe", lambda: _recipe(settings, pool))
    yield _tried("selection", lambda: _selection(settings, pool))


def _quietly(do: Callable[[], Ids]) -> Ids | None:
    try:
        return do()
    except AlrayError:
        return None  # said already, by the check of the test rows


def _unique(pool: Pool, test: Ids | None) -> str:
    pool.check_ids(other=[] if test is None else [test])
    return f"{pool.rows:,} ids, each once" + ("" if test is None else "; none is a test row's")


def _known(pool: Pool, uri: str, key: str, classes: list[str] | None, *, whole: bool = False) -> str:
    """Say how many labels `uri` has. `whole`: it must answer for every row, and may hold others besides."""
    labels = read_labels(uri)
    found = pool.locate(labels.ids)
    strange = [i for i in labels.ids if i not in found]
    if strange and not whole:
        some = ", ".join(strange[:EXAMPLES])
        raise LabelsError(f"`{key}` {uri} names {len(strange):,} ids that are not in the pool, e.g. {some}. Drop them.")
    if whole and len(found) < pool.rows:
        raise LabelsError(
            f"`{key}` {uri} answers for {len(found):,} of the pool's {pool.rows:,} rows. Add the missing labels."
        )
    material.refuse_unnamed(labels.only(set(found)).mapping(), classes, f"`{key}` {uri}")
    return f"{len(found):,} labels in {uri}"


def _backbone(settings: Settings) -> str:
    dim = describe(settings.features, settings.seed)[1]
    return f"{settings.features.backbone}, weights {settings.features.weights}: {dim} features a picture"


def _recipe(settings: Settings, pool: Pool) -> str:
    config = settings.training
    config.recipe.fits(pool, settings.head)
    name = next(name for name, member in RECIPES.items() if type(config.recipe) is member)
    return f"{name} in {'every' if config.when == 'every' else 'the last'} round"


def _selection(settings: Settings, pool: Pool) -> str:
    given = _given(settings)
    begun = bool(Ledger(opening.home(settings.run)).files("asks"))
    material.check_selection(settings, pool, given, begun=begun)
    columns = f", quotas by {', '.join(settings.selection.quotas)}" if settings.selection.quotas else ""
    return f"{settings.strategy.name} on {pool.kind}{columns}"


def _given(settings: Settings) -> Labels:
    """Return the labels that are there already; none where they cannot be read, which is said by their own line."""
    try:
        return read_labels(settings.labels) if settings.labels else Labels.of([])
    except AlrayError:
        return Labels.of([])


def _runtime(settings: Settings) -> str:
    with open_runtime(settings.runtime) as runtime:
        version = runtime.call(platform.python_version, stage="check")
        return f"{runtime.name}: a worker answered (Python {version}, {runtime.hardware})"
