"""Standard active learning, SVPp and ASVP: which features select, when they change, and what the ledger says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from campaigns import parse, picture_settings, raw_settings, settings

from alray import seeds
from alray.campaign import Settings, rounds, run
from alray.campaign.choosing import RESERVE
from alray.campaign.ledger import Ledger
from alray.campaign.stopping import StoppingConfig
from alray.errors import ConfigError, ModelError, RunError
from alray.models import Head
from alray.proxy import guard
from alray.proxy.guard import Verdict
from alray.training import FineTune, LpFt

BUDGET = {"initial": 20, "per_round": 8, "total": 44, "control": 0.25}
AUTO = {"name": "auto", "fine_tune": {"epochs": 2}, "lp_ft": {"epochs": 1}}


def settings_of(data: Path, run: Path, **more: Any) -> Settings:
    """Return four rounds on pictures."""
    raw = picture_settings(data, run).model_dump(mode="json")
    return parse({**raw, "budget": BUDGET, "training": {"when": "last", "recipe": AUTO}, **more})


def piece(folder: Path, number: int, name: str) -> Any:
    file = folder / f"rounds/{number:04d}/{name}"
    return json.loads(file.read_text()) if file.exists() else None


def accept(monkeypatch: pytest.MonkeyPatch, accepted: bool) -> None:
    """Let the guard say yes or no, whatever the features are."""
    said = Verdict(9, 0.1, 0.2, accepted, "said by the test")
    monkeypatch.setattr(guard, "judge", lambda *_: said)


def test_svpp_never_changes_its_features(data: Path, tmp_path: Path) -> None:
    done = run(settings_of(data, tmp_path / "run"))
    folder = tmp_path / "run"
    assert (done.state, done.rounds, done.labels) == ("done", 4, 44)
    assert len({piece(folder, n, "round.json")["features"] for n in range(4)}) == 1
    assert not list(folder.glob("rounds/*/switch.json")) and not list(folder.glob("rounds/*/aligned.json"))
    assert [piece(folder, n, "round.json")["model"] for n in range(4)] == ["head"] * 3 + ["lp_ft"]


def test_standard_selects_with_the_network_that_it_fine_tuned(data: Path, tmp_path: Path) -> None:
    done = run(settings_of(data, tmp_path / "run", regime="standard"))
    folder = tmp_path / "run"
    assert done.state == "done"
    assert [piece(folder, n, "round.json")["model"] for n in range(4)] == ["fine_tune"] * 4
    made = [piece(folder, n, "aligned.json") for n in range(4)]
    assert all(one["accepted"] for one in made)
    for number, one in enumerate(made):
        home = folder / f"rounds/{number:04d}"
        own = Head.load(str(home / one["folder"] / one["checkpoint"] / "head.safetensors"))
        assert Head.load(str(home / "head.safetensors")).digest() == own.digest()
    stages = [set(piece(folder, n, "cost.json")["stages"]) for n in range(4)]
    assert all("align" in found and "train" not in found for found in stages[:3])
    assert "train" in stages[3] and "align" not in stages[3]  # nothing selects with the last one
    assert all("features" in found for found in stages) and not any("fit" in found for found in stages)
    versions = {p.name for p in (tmp_path / "run-features").iterdir()}
    assert len(versions) == 4  # the pre-trained one for round 0, and one for each round that selects


def test_asvp_at_n_labels_fine_tunes_once_and_goes_on_with_new_features(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(monkeypatch, True)
    done = run(settings_of(data, tmp_path / "run", regime="asvp", switch={"at": 28}))
    folder = tmp_path / "run"
    assert done.state == "done"
    decisions = [piece(folder, n, "switch.json") for n in range(4)]
    assert [one["fire"] for one in decisions] == [False, True, False, False]
    assert "The features stay: they were updated once already (`switch.updates` is 1)." in decisions[2]["sentence"]
    assert decisions[3]["refusal"] == "no round follows that would select with others"
    assert decisions[1]["price"]["seconds"] > 0 and decisions[2]["price"] is None
    versions = [piece(folder, n, "round.json")["features"] for n in range(4)]
    assert versions[0] != versions[1] == versions[2] == versions[3]
    assert [piece(folder, n, "round.json")["aligned"] for n in range(4)] == [None, True, None, None]
    assert piece(folder, 3, "round.json")["model"] == "fine_tune"  # training alignment: FT after an update
    assert piece(folder, 1, "trial.json")["checkpoint"] and piece(folder, 1, "aligned.json")["checkpoint"]
    used = piece(folder, 1, "cost.json")["stages"]
    assert {"align", "features", "fit", "evidence"} <= set(used)
    assert piece(folder, 1, "cost.json")["sampling"]["seconds"] > used["align"]["seconds"]


def test_a_refused_alignment_keeps_the_features(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(monkeypatch, False)
    run(settings_of(data, tmp_path / "run", regime="asvp", switch={"at": 28}))
    folder = tmp_path / "run"
    assert len({piece(folder, n, "round.json")["features"] for n in range(4)}) == 1
    assert piece(folder, 1, "aligned.json") == {
        "schema": 1,
        "accepted": False,
        "reason": "Features kept: said by the test.",
        "verdict": {"rows": 9, "before": 0.1, "after": 0.2, "accepted": False, "reason": "said by the test"},
        "gain": piece(folder, 1, "trial.json")["gain"],
    }
    assert not (folder / "rounds/0001/aligned").exists()  # the whole fine-tune was not paid for
    assert piece(folder, 2, "switch.json")["fire"]  # and the rule asks again
    assert piece(folder, 3, "round.json")["model"] == "lp_ft"  # no update: LP-FT


def test_the_guard_really_judges(data: Path, tmp_path: Path) -> None:
    """Both sides of the verdict are the LogME of the same held-out rows, under either features."""
    run(settings_of(data, tmp_path / "run", regime="asvp", switch={"at": 28}))
    trial = piece(tmp_path / "run", 1, "trial.json")
    verdict = trial["verdict"]
    train = pq.read_table(tmp_path / "run/rounds/0001/labels.parquet").num_rows
    assert 0 < verdict["rows"] < train
    assert verdict["accepted"] == (verdict["after"] > verdict["before"])
    assert set(trial["accuracy"]) == {"rows", "before", "after"}


def test_the_holdout_may_judge_instead(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(monkeypatch, True)
    training = {"when": "last", "recipe": AUTO, "holdout": 0.3}
    switch = {"at": 28, "guard": "holdout"}
    run(settings_of(data, tmp_path / "run", regime="asvp", switch=switch, training=training))
    assert not (tmp_path / "run/rounds/0001/trial.json").exists()
    assert piece(tmp_path / "run", 1, "aligned.json")["accepted"]


def test_always_aligns_in_every_round_but_the_last(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(monkeypatch, True)
    run(settings_of(data, tmp_path / "run", regime="asvp", switch="always"))
    fires = [piece(tmp_path / "run", n, "switch.json")["fire"] for n in range(4)]
    assert fires == [True, True, True, False]
    versions = [piece(tmp_path / "run", n, "round.json")["features"] for n in range(4)]
    assert len(set(versions)) == 3


def test_logme_ped_writes_its_numbers_and_its_price(data: Path, tmp_path: Path) -> None:
    run(settings_of(data, tmp_path / "run", regime="asvp", switch={"name": "logme_ped", "min_per_class": 1}))
    folder = tmp_path / "run"
    for number in range(3):
        decision = piece(folder, number, "switch.json")
        drawn = rounds.drawn(Ledger(str(folder)), number)
        assert decision["evidence"]["labels"] == len(drawn) == 20 + 2 * number
        assert decision["price"]["seconds"] > 0 and decision["price"]["cpu_hours"] > 0
        assert "Fine-tune and re-embed now: " in decision["sentence"]
    assert "expected to save" in decision["sentence"]
    assert decision["price"]["gain"] == 0.25 and not decision["price"]["measured"]


def test_the_control_arm_is_drawn_at_random_and_ranks_last(data: Path, tmp_path: Path) -> None:
    done = run(settings(data, tmp_path / "run", "budget.control=0.34"))
    assert done.labels == 21
    for number, (strategy, control) in {1: (3, 3), 2: (1, 2)}.items():
        picks = pq.read_table(tmp_path / f"run/rounds/{number:04d}/picks.parquet")
        reasons = picks["reason"].to_pylist()
        assert reasons == ["strategy"] * strategy + ["control"] * control
        assert np.isneginf(picks["score"].to_numpy()[strategy:]).all()
        assert picks["rank"].to_pylist() == list(range(1, len(reasons) + 1))
    report = piece(tmp_path / "run", 1, "selection.json")
    assert (report["strategy"], report["picked"]) == ("margin", 3)


def reserved(ids: list[str], seed: int = 0) -> set[str]:
    draws = seeds.uniform(seeds.key(seed, "reserve"), seeds.hash_ids(ids))
    return {i for i, draw in zip(ids, draws, strict=True) if draw < RESERVE}


def test_the_control_arm_comes_from_a_part_where_no_strategy_picks(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run", "budget.control=0.34", "budget.total=60", "budget.per_round=12"))
    every = [i for f in sorted(data.glob("pool-*.parquet")) for i in pq.read_table(f)["id"].to_pylist()]
    kept = reserved(every)
    assert 5 < len(kept) < 30
    for number in range(1, 5):
        picks = pq.read_table(tmp_path / f"run/rounds/{number:04d}/picks.parquet").to_pylist()
        assert {p["id"] for p in picks if p["reason"] == "control"} <= kept
        assert not {p["id"] for p in picks if p["reason"] == "strategy"} & kept
        assert len(picks) == 12


def test_the_reserve_fills_what_the_strategy_can_no_longer_pick(data: Path, tmp_path: Path) -> None:
    """A pool of 80 rows is labelled to its last: nothing is left over, and nothing asked twice."""
    done = run(settings(data, tmp_path / "run", "budget.control=0.1", "budget.total=200", "budget.per_round=20"))
    assert (done.state, done.labels) == ("done", 80)
    last = pq.read_table(max((tmp_path / "run").glob("rounds/*/picks.parquet"))).to_pylist()
    assert "fill" in {p["reason"] for p in last}


def test_all_picks_of_the_random_strategy_are_a_control_arm(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run", "strategy=random"))
    assert len(rounds.drawn(Ledger(str(tmp_path / "run")), 2)) == 21


def test_the_estimate_leaves_out_rows_that_the_backbone_has_seen(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(monkeypatch, True)
    run(settings_of(data, tmp_path / "run", regime="asvp", switch={"at": 28}))
    found = [piece(tmp_path / "run", n, "forecast.json")["estimate"] for n in range(4)]
    assert found[0]["rows"] == 20 and found[0]["since"] == 0
    held = found[1]["rows"] if found[1] else 0
    assert held < 10  # only rows that were held out are new to the fine-tuned backbone
    assert [(one["rows"], one["since"]) for one in found[2:]] == [(held + 2, 1), (held + 4, 1)]
    assert all(one["on"] == "cross-validation" for one in found if one)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"switch": "always"}, "`switch` is always, and `regime` is svpp, which has no switch: set it to asvp"),
        ({"regime": "asvp", "switch": "logme_ped"}, "set `budget.control`, the share of each round"),
        ({"regime": "standard"}, "set `training.recipe` to fine_tune, lp_ft or auto"),
        ({"regime": "asvp", "switch": "logme"}, "Did you mean `logme_ped`?"),
        ({"regime": "svp"}, "regime"),
        (
            {
                "regime": "asvp",
                "switch": {"at": 5, "guard": "holdout"},
                "training": {"recipe": {"name": "fine_tune", "patience": 2}},
            },
            "set `switch.guard` to half, or take `patience` out",
        ),
    ],
)
def test_settings_that_do_not_fit_together(data: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(raw_settings(data, tmp_path / "run", **more))
    assert said in str(caught.value)


def test_off_may_be_said_as_yaml_says_it(data: Path, tmp_path: Path) -> None:
    assert settings(data, tmp_path / "run", "switch=off").switch.name == "off"
    assert settings(data, tmp_path / "run", "regime=asvp", "switch={at: 30}").switch.name == "at"


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"regime": "standard", "training": {"recipe": "fine_tune"}}, "training.recipe"),
        ({"regime": "asvp", "switch": {"at": 15}}, "`switch`"),
        ({"pretrain": {"method": "simsiam"}}, "`pretrain`"),
    ],
)
def test_a_pool_of_features_cannot_be_fine_tuned_on(
    data: Path, tmp_path: Path, more: dict[str, Any], what: str
) -> None:
    with pytest.raises(ModelError) as caught:
        run(parse(raw_settings(data, tmp_path / "run", **more)))
    assert what in str(caught.value) and "the pool holds `features` and no pictures" in str(caught.value)
    assert not list((tmp_path / "run").glob("asks/*"))


def test_recipes_are_chosen_by_whether_the_features_were_updated() -> None:
    from alray.training import Auto

    assert isinstance(Auto().choose(False), LpFt) and isinstance(Auto().choose(True), FineTune)


PRETRAIN = {"epochs": 1, "batch": 32, "dim": 8, "hidden": 4}


def test_a_backbone_is_trained_on_the_pool_first_and_kept_for_life(data: Path, tmp_path: Path) -> None:
    wanted = settings_of(data, tmp_path / "run", pretrain=PRETRAIN)
    run(wanted)
    [made] = (tmp_path / "run-features/pretrained").iterdir()
    assert json.loads((tmp_path / "run/pretrained.json").read_text())["folder"] == made.name
    stages = piece(tmp_path / "run", 0, "cost.json")
    assert stages["stages"]["pretrain"]["seconds"] > 0
    assert stages["sampling"]["seconds"] < stages["compute"]["seconds"] - stages["stages"]["pretrain"]["seconds"]
    plain = settings_of(data, tmp_path / "plain")
    run(plain)
    versions = [piece(tmp_path / name, 0, "round.json")["features"] for name in ("run", "plain")]
    assert versions[0] != versions[1]
    run(settings_of(data, tmp_path / "again", pretrain=PRETRAIN, features=wanted.features.model_dump()))
    assert [p.name for p in (tmp_path / "run-features/pretrained").iterdir()] == [made.name]


def test_a_lost_backbone_is_made_again_or_missed(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "data/pictures"
    shutil.copytree(data / "pictures", mine)
    pool = f"{mine}/pool*.parquet"
    begun = settings_of(tmp_path / "data", tmp_path / "run", pool=pool, pretrain=PRETRAIN, stopping={"rounds": 1})
    run(begun)
    shutil.rmtree(tmp_path / "run-features")
    assert run(begun.model_copy(update={"stopping": StoppingConfig(rounds=2)})).rounds == 2  # the same pool: the same
    shutil.rmtree(tmp_path / "run-features")
    pq.write_table(pq.read_table(data / "digits/pool.parquet").slice(900, 5), mine / "pool-more.parquet")
    with pytest.raises(RunError, match=r"is gone, and what would be trained now is another one .* Restore that folder"):
        run(begun.model_copy(update={"stopping": StoppingConfig(rounds=3)}))


def test_a_pool_that_grows_keeps_its_backbone(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "data/pictures"
    shutil.copytree(data / "pictures", mine)
    pool = f"{mine}/pool*.parquet"
    begun = settings_of(tmp_path / "data", tmp_path / "run", pool=pool, pretrain=PRETRAIN, stopping={"rounds": 1})
    run(begun)
    pq.write_table(pq.read_table(data / "digits/pool.parquet").slice(900, 5), mine / "pool-more.parquet")
    shutil.copy(data / "digits/oracle.parquet", mine / "oracle.parquet")
    assert run(begun.model_copy(update={"stopping": StoppingConfig(rounds=2)})).rounds == 2
    assert len(list((tmp_path / "run-features/pretrained").iterdir())) == 1
