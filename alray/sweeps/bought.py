"""What a run has bought: its labelled rows with their features, round by round, and its test rows.

The features are those that the run began with. Features that were fine-tuned on these very labels know the answers, and
what is chosen by them would be chosen with hindsight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alray import storage
from alray.campaign import Settings, material, opening, rounds
from alray.campaign.ledger import Ledger
from alray.campaign.workplace import PRETRAINED
from alray.errors import RunError
from alray.features import FeaturesConfig, FeatureSet, build
from alray.labelling import read_labels
from alray.models import backbone as backbones
from alray.pool import Pool
from alray.runtime import LocalRuntime

POOL, TEST, START, NOTE = "pool.parquet", "test.parquet", "start.parquet", "data.json"

Half = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Bought:
    """The labels of a run, by id: `start` were there before its strategy chose, `rounds` are what it bought then.

    `free` of them were given, and cost nothing.
    """

    run: str
    settings: Settings
    start: Mapping[str, str]
    rounds: tuple[Mapping[str, str], ...]
    free: int
    pool_rows: int
    label_dollars: float

    @property
    def labels(self) -> dict[str, str]:
        """All of them."""
        return {i: label for part in (self.start, *self.rounds) for i, label in part.items()}

    @property
    def digest(self) -> str:
        """The identity of what was bought, and when."""
        told = "\n".join(",".join(sorted(part)) for part in (self.start, *self.rounds))
        return hashlib.sha256(told.encode()).hexdigest()


def read(run: str) -> Bought:
    """Read what the finished rounds of a run bought. RunError where there is no choice to look back on."""
    ledger = Ledger(opening.home(run))
    found = opening.latest(ledger) if ledger.has("run.json") else None
    if found is None:
        raise RunError(f"There is no run in {run}: it has no settings. Give the folder that `run:` names.")
    settings, done = found[1], rounds.closed(ledger)
    storage.configure(settings.storage.endpoint, settings.storage.region)
    if settings.test is None:
        raise RunError(f"The run {run} has no test rows, so nothing can be said of what its labels were worth.")
    given = read_labels(settings.labels).mapping() if settings.labels else {}
    parts = [ledger.answers(one.number).mapping() for one in done]
    chosen = tuple(part for part in parts[1:] if part)
    if not chosen:
        raise RunError(
            f"The run {run} has finished {len(done)} rounds, and its strategy has bought no label in any of them: "
            "there is no choice to look back on. Run it on first."
        )
    costs = [one.json(rounds.COST) for one in done]
    return Bought(
        run=ledger.run,
        settings=settings,
        start={**given, **parts[0]},
        rounds=chosen,
        free=len(given),
        pool_rows=_pool(ledger, settings).rows,
        label_dollars=sum(cost["label_dollars"] for cost in costs),
    )


def write(bought: Bought, folder: str) -> None:
    """Write the labelled rows and the test rows as pools with features, once; RunError where another purchase is.

    A row that cannot be read is left out: no strategy could have chosen by it.
    """
    note = storage.join(folder, NOTE)
    if storage.exists(note):
        _refuse_other(bought, storage.read_json(note), folder)
        return
    ledger, settings = Ledger(bought.run), bought.settings
    assert settings.test is not None
    backbone = _backbone(ledger, settings)
    pool = _pool(ledger, settings)
    readable = _write(storage.join(folder, POOL), bought.labels, _features(pool, backbone, settings))
    test = material.open_test(settings.test, settings.classes)
    _write(storage.join(folder, TEST), test.labels, _features(test.pool, backbone, settings))
    start = {i: label for i, label in bought.start.items() if i in readable}
    start_table = pa.table({"id": list(start), "label": list(start.values())})
    storage.write_parquet(storage.join(folder, START), start_table)
    storage.write_json(note, {"schema": 1, "run": bought.run, "digest": bought.digest})


def _pool(ledger: Ledger, settings: Settings) -> Pool:
    return Pool.open(settings.pool, known=ledger.read_json(ledger.files("pool")[-1]))


def _backbone(ledger: Ledger, settings: Settings) -> FeaturesConfig:
    """Return the backbone that the run began with: its own pre-trained one, if it has one."""
    features, own = settings.features, settings.pretrain
    if own is None or not ledger.has(PRETRAINED):
        return features.model_copy(update={"weights": backbones.absolute(features.weights)})
    folder = storage.join(own.beside(features.path).path or "", ledger.read_json(PRETRAINED)["folder"])
    return features.model_copy(update={"weights": backbones.absolute(folder)})


def _features(pool: Pool, backbone: FeaturesConfig, settings: Settings) -> FeatureSet:
    """Return the features of a pool: its own, or those that the run has computed."""
    return build(pool, backbone, LocalRuntime(), seed=settings.seed)


def _write(uri: str, labels: Mapping[str, str], features: FeatureSet) -> set[str]:
    """Write `id, features, label` of the labelled rows that can be read, sorted by id; return their ids."""
    ids, rows = _rows(features, labels)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), features.dim)
    storage.write_parquet(uri, pa.table({"id": ids, "features": column, "label": [labels[i] for i in ids]}))
    return set(ids)


def _rows(features: FeatureSet, wanted: Mapping[str, str]) -> tuple[list[str], Half]:
    """Return ids and fp16 features of the wanted rows that can be read, sorted by id, one shard in memory at a time."""
    found: dict[str, Half] = {}
    for shard in features.shards:
        rows = shard.read()
        here = np.flatnonzero(np.isin(rows.ids.astype(str), list(wanted)) & rows.ok_N)
        found |= {str(rows.ids[row]): np.array(rows.features_ND[row]) for row in here}
    ids = sorted(found)
    return ids, np.stack([found[i] for i in ids])


def _refuse_other(bought: Bought, note: Mapping[str, str], folder: str) -> None:
    if (note["run"], note["digest"]) != (bought.run, bought.digest):
        raise RunError(
            f"{folder} holds what {note['run']} had bought when it was written, which is not what {bought.run} has "
            "bought now. Name a new folder: `sweep.folder=…`."
        )


def known(rounds_: Sequence[Mapping[str, str]], start: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the labels that were known after the start and after each round."""
    out = [dict(start)]
    for part in rounds_:
        out.append({**out[-1], **part})
    return out
