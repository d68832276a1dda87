"""`alray check`: what it looks at, what it says when something is wrong, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

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
