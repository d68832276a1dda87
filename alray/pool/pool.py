"""Pool: everything that can be labelled, cut into shards by the data alone.

Opening reads footers and listings, never rows, and the cut depends on nothing but the files and
`rows_per_shard`: the same pool has the same shards on any number of workers.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from typing import Any

from pydantic import Field

from alray import log as logs
from alray import storage
from alray.config import Config
from alray.errors import PoolError
from alray.pool import folder, ids, manifest, parquet, sources
from alray.pool.shard import Kind, Shard
from alray.pool.sources import Source
from alray.table import Ids

log = logging.getLogger(__name__)

ROWS_PER_SHARD = 65_536
FOOTERS_AT_ONCE = 16


class PoolConfig(Config):
    """Where the pool is and how it is cut; `max_quarantine` is the share of unreadable rows that stops a run.

    `roots` are local folders, beside that of its Parquet file, that a `uri` column may point into.
    """

    path: str | list[str]
    rows_per_shard: int = Field(ROWS_PER_SHARD, ge=1)
    max_quarantine: float = Field(0.01, ge=0.0, le=1.0)
    roots: list[str] = Field(default_factory=list)


class Pool:
    """All that can be labelled: `shards`, their `kind`, and `dim`, the number of features (None for pictures)."""

    def __init__(self, shards: Sequence[Shard], rows_per_shard: int) -> None:
        self.shards: tuple[Shard, ...] = tuple(shards)
        self.kind: Kind = self.shards[0].kind
        self.dim: int | None = self.shards[0].dim
        self.rows: int = sum(shard.rows for shard in self.shards)
        self.rows_per_shard = rows_per_shard

    def __repr__(self) -> str:
        features = f", {self.dim} features" if self.dim else ""
        return f"Pool({self.kind}, {self.rows:,} rows in {len(self.shards)} shards{features})"

    @staticmethod
    def open(
        path: str | Sequence[str] | PoolConfig,
        *,
        rows_per_shard: int = ROWS_PER_SHARD,
        known: dict[str, Any] | None = None,
    ) -> Pool:
        """Open a pool from files, globs or folders; PoolError when they are no pool.

        With `known`, the manifest of an earlier opening, its shards keep their numbers and new files come after
        them; PoolError when a file that it knows has changed or is gone.
        """
        roots: tuple[str, ...] = ()
        if isinstance(path, PoolConfig):
            rows_per_shard, roots, path = path.rows_per_shard, tuple(map(_absolute, path.roots)), path.path
            _warn_of_missing(roots)
        if rows_per_shard < 1:
            raise PoolError(f"`pool.rows_per_shard` is {rows_per_shard}; it must be 1 or more.")
        found = sources.find(path)
        kept = manifest.read(known) if known is not None else []
        _check_known(kept, found)
        shards = kept + list(_new_shards(found, kept, rows_per_shard))
        if not shards:
            raise PoolError(f"The pool has no rows: {_some(s.uri for s in found)} hold none. Give files with rows.")
        _check_alike(shards)
        numbered = [replace(shard, number=number, roots=roots) for number, shard in enumerate(shards)]
        return Pool(numbered, rows_per_shard)

    def manifest(self) -> dict[str, Any]:
        """Return what `open(known=…)` takes, as JSON values, schema 1."""
        return manifest.write(self.shards, self.kind, self.dim, self.rows_per_shard)

    def fingerprint(self) -> str:
        """Return the identity of the pool's content, cut included."""
        return hashlib.sha256("\n".join(shard.fingerprint() for shard in self.shards).encode()).hexdigest()

    def check_ids(self, *, other: Sequence[Ids] = ()) -> None:
        """Read all ids; PoolError when one is null, stands twice, or stands in `other` (test ids) too."""
        ids.check(self.shards, other)

    def locate(self, wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return (shard number, row in the shard) of each id; an id that the pool does not have is left out."""
        return ids.locate(self.shards, wanted)


def _check_known(kept: Sequence[Shard], found: Sequence[Source]) -> None:
    """Raise PoolError when a known file is gone or changed; a folder is checked slice by slice."""
    present = {source.uri: source for source in found}
    for uri, shards in groupby(kept, key=lambda shard: shard.uri):
        if uri not in present:
            raise PoolError(
                f"{uri} was in the pool and is not any more. Shards keep their numbers for a run's whole life, so "
                f"its files must stay: put it back into `pool.path`, or start a new run."
            )
        slices = list(shards)
        if slices[0].kind == "folder":
            _check_folder(slices, present[uri])
        elif storage.stamp(uri) != slices[0].stamp:
            raise PoolError(
                f"{uri} was written again since this run began. Put the old file back and add new rows as a new "
                f"file, or start a new run."
            )


def _check_folder(slices: Sequence[Shard], source: Source) -> None:
    names = folder.names(source.uri, source.pattern)
    for shard in slices:
        within = names[shard.start : shard.stop]
        if shard.pattern != source.pattern or folder.digest(source.uri, within) != shard.stamp:
            raise folder.changed(source.uri, shard.start, shard.stop)


def _new_shards(found: Sequence[Source], kept: Sequence[Shard], rows_per_shard: int) -> Iterator[Shard]:
    """Yield the shards of all rows that `kept` does not cover, not yet numbered."""
    ends: dict[str, int] = {}
    for shard in kept:
        ends[shard.uri] = max(ends.get(shard.uri, 0), shard.stop)
    footers = _footers([s.uri for s in found if not s.pattern and s.uri not in ends])
    for source in found:
        if source.pattern:
            yield from _cut_folder(source, ends.get(source.uri, 0), rows_per_shard)
        elif source.uri in footers:
            yield from _cut_file(footers[source.uri], rows_per_shard)


def _footers(uris: Sequence[str]) -> dict[str, parquet.Footer]:
    with ThreadPoolExecutor(FOOTERS_AT_ONCE, thread_name_prefix="footers") as threads:
        found = list(logs.progress(threads.map(parquet.inspect, uris), len(uris), "reading footers"))
    rounded = sorted({f.stored for f in found if f.stored not in (None, "float16")}, key=str)
    if rounded:
        log.info("The pool's features are %s; they are rounded once to float16.", " and ".join(map(str, rounded)))
    return {footer.uri: footer for footer in found}


def _cut_file(footer: parquet.Footer, rows_per_shard: int) -> Iterator[Shard]:
    if footer.content == "features" and footer.rows and not footer.dim:
        raise PoolError(f"{footer.uri}: `features` has no values in any row. A pool needs vectors of one size or more.")
    for start in range(0, footer.rows, rows_per_shard):
        stop = min(start + rows_per_shard, footer.rows)
        yield Shard(0, footer.uri, start, stop, footer.content, footer.stamp, footer.dim)


def _cut_folder(source: Source, begin: int, rows_per_shard: int) -> Iterator[Shard]:
    names = folder.names(source.uri, source.pattern)
    for start in range(begin, len(names), rows_per_shard):
        stop = min(start + rows_per_shard, len(names))
        stamp = folder.digest(source.uri, names[start:stop])
        yield Shard(0, source.uri, start, stop, "folder", stamp, pattern=source.pattern)


def _check_alike(shards: Sequence[Shard]) -> None:
    first = shards[0]
    for shard in shards:
        if shard.kind != first.kind:
            raise PoolError(
                f"{first.uri} is a file of `{first.kind}` and {shard.uri} one of `{shard.kind}`. All files of a pool "
                f"hold the same; open the others as a pool of their own."
            )
        if shard.dim != first.dim:
            raise PoolError(
                f"{first.uri} has {first.dim} features a row and {shard.uri} has {shard.dim}. All files of a pool "
                f"have the same number; make them with the same backbone."
            )


def _absolute(folder: str) -> str:
    local = storage.local_path(folder)  # workers may stand in another folder
    return folder if local is None else str(local)


def _warn_of_missing(roots: Iterable[str]) -> None:
    """Name folders that are not here: no mistake where only the workers have them."""
    if missing := [root for root in roots if not storage.is_remote(root) and not os.path.isdir(root)]:
        log.warning("`pool.roots`: %s is no folder of this machine; workers must have it", _some(missing))


def _some(uris: Iterable[str]) -> str:
    listed = list(uris)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
