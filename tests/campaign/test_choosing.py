"""Quotas and near-duplicates in a campaign: whom they bind, and what is refused before a label is paid for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaigns import parse, raw_settings

from alray import config
from alray.campaign import opening, rounds, run
from alray.campaign.ledger import Ledger
from alray.errors import ConfigError, PoolError
from alray.selection import Picks


@pytest.fixture
def raw(data: Path, tmp_path: Path) -> dict[str, Any]:
    """Return settings of three rounds on the pool with a column `source`: day, or every fourth row night."""
    whole = pa.concat_tables([pq.read_table(data / f"pool-{n}.parquet") for n in range(2)])
    source = ["night" if n % 4 == 0 else "day" for n in range(len(whole))]
    pq.write_table(whole.append_column("source", pa.array(source)), tmp_path / "pool.parquet")
    budget = {"initial": 12, "per_round": 6, "total": 21, "control": 0.34}
    return {**raw_settings(data, tmp_path / "run"), "pool": str(tmp_path / "pool.parquet"), "budget": budget}


def picks(raw: dict[str, Any]) -> list[Picks]:
    """Run to the end; return the picks of every round."""
    run(parse(raw))
    return [round.picks() for round in rounds.closed(Ledger(opening.home(raw["run"])))]


def by_reason(raw: dict[str, Any], found: Picks, reason: str) -> Counter[str]:
    """Return how many picks of this reason each source has."""
    table = pq.read_table(raw["pool"], columns=["id", "source"]).to_pylist()
    source = {row["id"]: row["source"] for row in table}
    return Counter(source[i] for i, why in zip(found.ids, found.reasons, strict=True) if why == reason)


@pytest.mark.parametrize("strategy", ["margin", "random"])
def test_quotas_bind_the_strategy_and_not_what_stands_for_the_pool(raw: dict[str, Any], strategy: str) -> None:
    quotas = {"source": {"at_most": {"night": 0}}}
    free, bound = (
        picks(raw),
        picks({**raw, "run": raw["run"] + "2", "strategy": strategy, "selection": {"quotas": quotas}}),
    )
    assert [len(found) for found in bound] == [12, 6, 3]
    assert free[0].ids.tolist() == bound[0].ids.tolist()
    for before, after in zip(free[1:2], bound[1:2], strict=True):
        assert by_reason(raw, before, "control") == by_reason(raw, after, "control")
    assert all(by_reason(raw, found, "strategy")["night"] == 0 for found in bound[1:])


def test_a_round_that_the_budget_cuts_short_has_no_minimums(raw: dict[str, Any]) -> None:
    quotas = {"source": {"at_least": {"night": 3}}}
    found = picks({**raw, "selection": {"quotas": quotas}})
    assert by_reason(raw, found[1], "strategy")["night"] >= 3
    assert len(found[2]) == 3


def test_near_duplicates_are_bought_in_no_way(raw: dict[str, Any]) -> None:
    selection = {"min_distance": 0.3}
    found = picks({**raw, "selection": selection, "budget": {**raw["budget"], "per_round": 30, "total": 80}})
    ids = [i for one in found for i in one.ids]
    assert {why for one in found for why in one.reasons} >= {"initial", "control", "strategy"}
    table = pq.read_table(raw["pool"])
    at = {i: n for n, i in enumerate(table["id"].to_pylist())}
    rows = np.stack(table["features"].to_numpy(zero_copy_only=False))[[at[i] for i in ids]].astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    apart = 1 - units @ units.T + 2 * np.eye(len(units))
    assert apart.min() > 0.3 - 1e-3  # unit rows are rounded to fp16
    assert len(ids) < 80, "the pool has near-duplicates, and they were left"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"selection": {"quotas": {"source": {"at_least": {"day": 5}}}}},
            "`selection.quotas.source` asks for at least 5 rows, and the budget is 3",
        ),
        (
            {"strategy": "isal", "training": {"holdout": 0}},
            "`isal` asks which rows would lower the loss of held-out ones, and `training.holdout` is 0",
        ),
    ],
)
def test_what_can_never_be_met_is_refused(raw: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({**raw, **more})
    assert said in str(caught.value)


def test_a_column_that_the_pool_lacks_is_refused_before_a_label_is_paid_for(raw: dict[str, Any]) -> None:
    settings = config.parse({**raw, "selection": {"quotas": {"sauce": {"at_most": 1}}}}, type(parse(raw)))
    with pytest.raises(PoolError, match="sauce"):
        run(settings)
    assert not Ledger(opening.home(raw["run"])).files("asks")
