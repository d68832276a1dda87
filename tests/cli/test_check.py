"""`alray check`: what it looks at, what it says when something is wrong, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Literal

import pytest

from alray.campaign import material
from alray.labelling import LABELLERS, Oracle

Alray = Callable[..., tuple[int, str, str]]


def line(out: str, name: str, state: str = "") -> str:
    """Return the text of the line about `name`."""
    found = [text.split(maxsplit=2) for text in out.splitlines() if text.split()[1:2] == [name]]
    return next(text for was, _, text in found if not state or was == state)


def test_the_machine_alone(alray: Alray) -> None:
    _, out, _ = alray("check")
    for name in ("torch", "torchvision", "ray"):
        assert line(out, name).startswith(metadata.version(name))
    assert "GiB free" in line(out, "temporary")


def test_a_good_campaign_is_well_and_nothing_is_left_behind(campaign: str, alray: Alray) -> None:
    before = sorted(Path(campaign).parent.iterdir())
    code, out, _ = alray("check", campaign)
    assert code == 0, out
    assert line(out, "pool") == "Pool(features, 180 rows in 1 shards, 8 features)"
    assert line(out, "ids") == "180 ids, each once; none is a test row's"
    assert line(out, "test") == "60 rows, each with a label"
    assert line(out, "labeller").startswith("180 labels in ")
    assert line(out, "run").endswith("can be written")
    assert line(out, "runtime").startswith("local: a worker answered")
    assert out.endswith("All is well.\n")
    assert sorted(Path(campaign).parent.iterdir()) == before


def test_settings_with_mistakes_end_the_check(campaign: str, alray: Alray) -> None:
    code, out, _ = alray("check", campaign, "strategy=marign", "budget.totl=1")
    assert code == 2
    assert "has 2 mistakes:" in line(out, "settings", "wrong")
    assert "Did you mean `margin`?" in out and "Did you mean `total`?" in out
    assert out.endswith("thing(s) to mend.\n")


def test_all_that_is_wrong_is_said_in_one_run(campaign: str, alray: Alray) -> None:
    folder = Path(campaign).parent
    (folder / "labels.csv").write_text("id,label\nnobody,class-0\n")
    (folder / "answers.csv").write_text("id,label\npool-000,class-0\n")
    code, out, _ = alray(
        "check", campaign, f"test.path={folder}/pool.parquet", f"test.labels={folder}/pool.parquet",
        f"labels={folder}/labels.csv", f"labeller.path={folder}/answers.csv",
    )  # fmt: skip
    assert code == 2
    assert "test" in line(out, "ids", "wrong")
    assert "names 1 ids that are not in the pool, e.g. nobody" in line(out, "labels", "wrong")
    assert "answers for 1 of the pool's 180 rows" in line(out, "labeller", "wrong")


def test_a_pool_that_is_not_there_is_wrong(campaign: str, alray: Alray) -> None:
    code, out, _ = alray("check", campaign, "pool.path=nowhere/*.parquet")
    assert code == 2
    assert "nowhere/*.parquet" in line(out, "pool", "wrong")


def test_a_run_folder_that_cannot_be_written_is_wrong(campaign: str, alray: Alray) -> None:
    code, out, _ = alray("check", campaign, f"run={campaign}/run")
    assert code == 2
    assert campaign in line(out, "run", "wrong")


def test_a_recipe_that_the_pool_cannot_feed_is_wrong(campaign: str, alray: Alray) -> None:
    code, out, _ = alray("check", campaign, "training.recipe.name=lp_ft", "training.when=last")
    assert code == 2
    assert "holds `features` and no pictures" in line(out, "recipe", "wrong")
    assert "linear_probe in every round" in line(alray("check", campaign)[1], "recipe", "ok")


def test_classes_that_the_labels_do_not_have_are_wrong(campaign: str, alray: Alray) -> None:
    code, out, _ = alray("check", campaign, "classes=[fish, bird]")
    assert code == 2
    for name in ("test", "labeller"):
        assert "of classes that `classes` does not name" in line(out, name, "wrong")


def test_what_a_strategy_or_a_quota_cannot_have_of_this_pool_is_wrong(campaign: str, alray: Alray) -> None:
    isal = ("strategy.name=isal", "classes=[class-0, class-1, class-2]")
    for words, said in (
        (
            ("selection.quotas={label: {at_most: {clas-1: 2}}}",),
            "names 'clas-1', which no row of the pool has. Did you",
        ),
        (("selection.quotas={sauce: {at_most: 2}}",), "has no column `sauce`"),
        ((*isal, "selection.quotas.predicted_class.at_most={cat: 1}"), "'cat', which is none of the 3 classes"),
        ((*isal, "strategy.params=all_weights"), "features alone: `params: last_layer`"),
        ((*isal, "strategy.top_k=3"), "the head has 3 classes"),
        (("strategy.name=isal", "strategy.top_k=3"), "the head has 3 classes"),
    ):
        code, out, _ = alray("check", campaign, *words)
        assert code == 2 and said in line(out, "selection", "wrong"), out
    words = ("selection.quotas={label: {at_most: {class-1: 2}}}",)
    assert line(alray("check", campaign, *words)[1], "selection", "ok") == "margin on features, quotas by label"


def test_a_top_k_is_measured_by_the_labels_that_are_there_until_more_are_asked_for(
    campaign: str, alray: Alray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Person(Oracle):
        """Says nothing of the classes before it is asked."""

        name: Literal["person"] = "person"  # type: ignore[assignment]

    monkeypatch.setitem(LABELLERS, "person", Person)
    monkeypatch.setattr(material, "Oracle", type(None))
    rows = [f"pool-{n:03d},class-{n // 60}" for n in range(0, 120, 6)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows]))
    words = ("strategy.name=isal", "strategy.top_k=2", f"labels={tmp_path}/labels.csv", "labeller.name=person")
    code, out, _ = alray("check", campaign, *words, "budget.initial=0")
    assert code == 2 and "the head has 2 classes" in line(out, "selection", "wrong"), out
    assert alray("check", campaign, *words)[0] == 0  # round 0 may buy a third class
