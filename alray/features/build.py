"""Compute a pool's features once, and only those that are not there yet.

Everything is keyed by content: a version (weights, transform, precision, batch) names a folder, a pool shard's
identity names a file in it. What exists is finished; so the same call resumes after any kill, a pool that grew costs
its new shards only, and two drivers that build the same features at once at worst do some work twice.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from alray import storage
from alray.errors import ConfigError
from alray.features import commit, extract, store
from alray.features.commit import Job, Record
from alray.features.extract import Chunk, Precision
from alray.features.store import FeatureSet, FeatureShard
from alray.models import backbone as backbones
from alray.models.backbone import BackboneConfig
from alray.models.transform import Transform
from alray.pool import Pool, Shard
from alray.pool.quarantine import Quarantine
from alray.runtime.base import Extraction, Runtime

log = logging.getLogger(__name__)

WAVE_CHUNKS = 4096
"""Chunks between two rounds of committing whole shards: about a million rows, so that few part files lie about."""


class FeaturesConfig(BackboneConfig):
    """Which backbone looks at the pictures, and where its features are kept.

    `path` is a folder outside the run, so that runs and sweeps share what is in it. `batch` is part of what the
    features are: another batch size may differ in the last bit, so it makes a new version.
    """

    path: str | None = None
    batch: int = Field(64, ge=1, le=4096)  # pictures of one forward pass
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU, or whatever is already complete


@dataclass(frozen=True)
class Maker:
    """What computes the features: the backbone, and the arithmetic it is run in."""

    config: FeaturesConfig
    seed: int
    fingerprint: str
    dim: int
    steps: Transform
    precision: Precision

    @property
    def version(self) -> str:
        """The version of what it makes."""
        return version_of(self.fingerprint, self.precision, self.config.batch)

    @property
    def folder(self) -> str:
        """Where what it makes is kept; absolute, since workers may stand in another folder."""
        path = self.config.path
        assert path is not None
        local = storage.local_path(path)
        return storage.join(path if local is None else str(local), self.version)

    def describe(self, pool: Pool) -> dict[str, Any]:
        """Return what a manifest says about the features of a pool, beside its shards."""
        return {
            "version": self.version,
            "backbone": self.config.backbone,
            "weights": self.config.weights,
            "transform": self.steps.describe(),
            "fingerprint": self.fingerprint,
            "precision": self.precision,
            "batch": self.config.batch,
            "dim": self.dim,
            "rows": pool.rows,
            "pool": pool.fingerprint(),
        }

    def job(self, shard: Shard) -> Job:
        """Return what there is to do for a pool shard."""
        key = store.shard_key(shard)
        parts, uri = storage.join(self.folder, "parts", key), storage.join(self.folder, store.shard_name(key))
        return Job(shard, key, uri, parts, len(extract.cut(shard, key, self.config.batch, parts, uri)))

    def extraction(self, chunks: Sequence[Chunk]) -> Extraction:
        """Return the work that commits the part files of these chunks."""
        return Extraction(
            chunks=chunks,
            decode=functools.partial(extract.decode, steps=self.steps),
            embedder=functools.partial(
                extract.embedder, self.config, self.seed, self.fingerprint, self.config.batch, self.precision
            ),
            write=functools.partial(extract.write_part, version=self.version),
        )


def build(pool: Pool, config: FeaturesConfig, runtime: Runtime, *, seed: int) -> FeatureSet:
    """Return the features of a pool, computing what is missing. A pool that brings its own is passed through.

    `seed` matters only to a backbone without weights. Raises ConfigError when pictures have no `features.path`.
    """
    if pool.kind == "features":
        return from_pool(pool)
    if config.path is None:
        beside = pool.shards[0].uri.rsplit("/", 1)[0]
        raise ConfigError(
            f"`features.path` is not set, and this pool has pictures ({pool.kind}), whose features must be kept "
            f"somewhere. Name a folder outside the run, so that runs share it, for example "
            f"`features.path={storage.join(beside, 'features')}`."
        )
    maker = _maker(config, seed, runtime, [store.shard_key(shard) for shard in pool.shards])
    jobs = [maker.job(shard) for shard in pool.shards]
    records = _complete(jobs, maker, runtime)
    commit.write_manifest(maker.folder, maker.describe(pool), jobs, records)
    return _feature_set(jobs, records, maker)


def from_pool(pool: Pool) -> FeatureSet:
    """Return the features that a pool came with, read from its own files."""
    assert pool.dim is not None
    version = f"pool-{pool.fingerprint()[:16]}"
    shards = tuple(
        FeatureShard(s.number, s.uri, s.start, s.stop, "pool", version, store.shard_key(s), pool.dim, s)
        for s in pool.shards
    )
    return FeatureSet(shards, pool.dim, version, pool.rows, Quarantine())


def version_of(fingerprint: str, precision: Precision, batch: int) -> str:
    """Return the version of features: of the backbone's weights and transform, and of the arithmetic."""
    name = json.dumps([store.SCHEMA, fingerprint, precision, batch])
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def describe(config: BackboneConfig, seed: int) -> tuple[str, int, Transform]:
    """Return a backbone's fingerprint, feature size and transform; runs on a worker, where the weights are."""
    backbone = backbones.load(config, seed)
    return backbone.fingerprint, backbone.dim, backbone.transform


def _maker(config: FeaturesConfig, seed: int, runtime: Runtime, keys: Sequence[str]) -> Maker:
    """Say what computes the features: `precision: auto` does not compute again what is complete in the other one."""
    fingerprint, dim, steps = runtime.call(describe, config, seed, stage="features")
    native: Precision = "fp32" if runtime.hardware == "cpu" else "bf16"
    if config.precision != "auto":
        return Maker(config, seed, fingerprint, dim, steps, config.precision)
    first = Maker(config, seed, fingerprint, dim, steps, native)
    other = replace(first, precision="bf16" if native == "fp32" else "fp32")
    names = {store.shard_name(key) for key in keys}
    return next((maker for maker in (first, other) if names <= commit.names(maker.folder)), first)


# -- what is missing ---------------------------------------------------------------------------------------------


def _complete(jobs: Sequence[Job], maker: Maker, runtime: Runtime) -> dict[str, Record]:
    """Compute and commit the shards that have no file yet; return the record of every shard, by key."""
    names = commit.names(maker.folder)
    missing = [job for job in jobs if store.shard_name(job.key) not in names]
    log.info("features %s: %d of %d shards to compute", maker.version, len(missing), len(jobs))
    records = {} if len(missing) == len(jobs) else commit.known(maker.folder)
    for wave in _waves(missing):
        chunks = [chunk for job in wave for chunk in _open_chunks(job, maker.config.batch)]
        runtime.extract(maker.extraction(chunks), stage="features")
        records |= {r.key: r for r in runtime.map(commit.finish, wave, maker.version, stage="features: files")}
    unknown = [job for job in jobs if job.key not in records]
    return records | {r.key: r for r in runtime.map(commit.finish, unknown, maker.version, stage="features: check")}


def _waves(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    wave: list[Job] = []
    for job in jobs:
        wave.append(job)
        if sum(j.chunks for j in wave) >= WAVE_CHUNKS:
            yield wave
            wave = []
    if wave:
        yield wave


def _open_chunks(job: Job, batch: int) -> list[Chunk]:
    """Return the chunks of a shard that have no part file yet."""
    there = commit.names(job.parts)
    cut = extract.cut(job.shard, job.key, batch, job.parts, job.uri)
    return [chunk for chunk in cut if chunk.part.rsplit("/", 1)[-1] not in there]


def _feature_set(jobs: Sequence[Job], records: dict[str, Record], maker: Maker) -> FeatureSet:
    quarantine = Quarantine()
    shards = []
    for job in jobs:
        s, record = job.shard, records[job.key]
        of = (maker.version, job.key, maker.dim)
        shards.append(FeatureShard(s.number, job.uri, s.start, s.stop, "store", *of, s, record.sha256))
        for row, name, reason in record.bad:
            quarantine.add(name, s.number, row, reason)
    return FeatureSet(tuple(shards), maker.dim, maker.version, sum(s.rows for s in shards), quarantine)
