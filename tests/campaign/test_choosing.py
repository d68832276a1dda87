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
from alray.errors import ConfigError, PoolError, StrategyError, UserError
from alray.selection import Picks

NAMES = ["class-0", "class-1", "class-2"]


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


@pytest.mark.parametrize("most", [{"day": 1, "night": 1}, {"day": 1, "night": 9}])
def test_what_is_filled_up_counts_with_what_the_strategy_took(raw: dict[str, Any], most: dict[str, int]) -> None:
    found = picks({**raw, "selection": {"quotas": {"source": {"at_most": most}}}})
    for one in found[1:]:
        counts = by_reason(raw, one, "strategy") + by_reason(raw, one, "fill")
        assert all(counts[value] <= limit for value, limit in most.items()), counts
        assert by_reason(raw, one, "control").total() >= 1
    assert len(found[1]) == (5 if most["night"] == 1 else 6)


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


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"selection": {"quotas": {"sauce": {"at_most": 1}}}}, PoolError, "sauce"),
        ({"selection": {"quotas": {"source": {"at_most": {"nihgt": 2}}}}}, StrategyError, "Did you mean `night`"),
        (
            {"classes": NAMES, "selection": {"quotas": {"predicted_class": {"at_most": {"class-9": 2}}}}},
            StrategyError,
            "names 'class-9', which is none of the 3 classes",
        ),
        ({"strategy": {"name": "isal", "params": "all_weights"}}, StrategyError, "params: last_layer"),
        ({"strategy": {"name": "isal", "top_k": 3}, "classes": NAMES}, StrategyError, "the head has 3 classes"),
        ({"strategy": {"name": "isal", "top_k": 3}}, StrategyError, "the head has 3 classes"),  # of the oracle's file
        ({"strategy": {"name": "diverse", "base": {"name": "isal", "top_k": 4}}}, StrategyError, "`top_k` is 4"),
    ],
)
def test_what_the_pool_or_the_classes_lack_is_refused_before_a_label_is_paid_for(
    raw: dict[str, Any], more: dict[str, Any], error: type[UserError], said: str
) -> None:
    settings = config.parse({**raw, **more}, type(parse(raw)))
    with pytest.raises(error, match=said):
        run(settings)
    assert not Ledger(opening.home(raw["run"])).files("asks")


def test_a_class_without_a_label_stops_no_campaign(raw: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    quotas = {"predicted_class": {"at_most": {"class-0": 4, "class-9": 4}}}
    assert len(picks({**raw, "selection": {"quotas": quotas}})) == 3
    assert "names 'class-9': no class of the head" in caplog.text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"selection": {"min_distance": 0.9}},
            "no row is left that `selection` lets in; {} of 21 labels bought. Lower `selection.min_distance`, and the "
            "same command goes on.",
        ),
        ({"budget": {"initial": 30, "per_round": 50, "total": 500}}, "every row of the pool is labelled or asked for"),
        ({}, "the budget is spent."),
    ],
)
def test_the_end_says_why(raw: dict[str, Any], more: dict[str, Any], said: str) -> None:
    done = run(parse({**raw, **more}))
    assert done.state == "done" and done.message.startswith(said.format(done.labels))


def test_rows_that_cannot_be_read_are_what_is_left(raw: dict[str, Any], tmp_path: Path) -> None:
    table = pq.read_table(raw["pool"])
    cells = [None if n == 7 else cell for n, cell in enumerate(table["features"].to_pylist())]
    column = pa.array(cells, table["features"].type)
    pq.write_table(table.set_column(1, "features", column), tmp_path / "pool.parquet")
    budget, pool = {"initial": 70, "per_round": 50, "total": 500}, {"path": raw["pool"], "max_quarantine": 0.1}
    done = run(parse({**raw, "budget": budget, "pool": pool}))
    assert done.message == "the 1 rows that are left of the pool cannot be read; 79 of 500 labels bought."
