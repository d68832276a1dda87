"""Rows that are held out from every model are paid for all the same: nothing like them is bought a second time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import builders
import numpy as np
import pytest
import torch

from alray.labelling import Labels
from alray.models.head import Head
from alray.runtime import LocalRuntime
from alray.selection.resident_pool import ResidentPool
from alray.selection.select import open_features, select
from alray.strategies import Given, find
from alray.table import Table

NAMES = ["coreset", "cdal", "kmeans_pp", "typiclust", "active_ft", "prob_cover", "core_gcn", "uncertain_gcn"]


def table(ids: Sequence[str], features_ND: np.ndarray) -> Table:
    return Table(list(ids), {"features": torch.from_numpy(np.asarray(features_ND, dtype=np.float32))})


def picked(path: str, strategy: object, given: Given, closed: Sequence[str]) -> list[str]:
    with ResidentPool(open_features(path, None)[0], LocalRuntime()) as pool:
        return pool.select(find(strategy), given, excluded=closed).picks.ids.tolist()  # type: ignore[arg-type]


def test_bought_rows_are_all_that_have_labels_once_each_by_id() -> None:
    labelled, holdout = table(["b", "e"], [[1], [2]]), table(["d", "a", "c"], [[3], [4], [5]])
    given = Given(1, 0, 0, labelled=labelled, holdout=holdout, reference=holdout.take(np.array([0])))
    assert given.bought is not None
    assert given.bought.ids.tolist() == list("abcde") and given.bought["features"][:, 0].tolist() == [4, 1, 5, 3, 2]
    assert Given(1, 0, 0).bought is None


def test_a_row_that_a_person_skipped_is_bought() -> None:
    skipped = table(["a"], [[1]])
    given = Given(1, 0, 0, labelled=table(["b"], [[2]]), skipped=skipped)
    assert given.bought is not None and given.bought.ids.tolist() == ["a", "b"]
    alone = Given(1, 0, 0, skipped=skipped).bought
    assert alone is not None and alone.ids.tolist() == ["a"]


def test_nothing_beside_a_row_that_the_labels_file_says_was_skipped_is_bought(tmp_path: Path) -> None:
    matrix_ND = np.array([[0, 0], [10, 0], [10, 0.25], [3, 0], [0, 3]], dtype=np.float16)
    names = builders.ids(5)
    path = builders.parquet(tmp_path / "pool.parquet", {"id": names, "features": builders.vectors(matrix_ND)})
    known = {"id": names[0], "label": "cat"}
    labels = Labels.of([known, {"id": names[1], "label": None, "status": "skipped"}])
    assert set(select("coreset", path, budget=2, labels=labels).picks.ids) == {names[3], names[4]}
    assert names[2] in select("coreset", path, budget=2, labels=Labels.of([known]), exclude=names[1:2]).picks.ids


def test_bought_rows_have_the_columns_that_all_of_them_have() -> None:
    seen = table(["a"], [[1]]).with_columns(pictures=torch.zeros(1, 3, 2, 2))
    bought = Given(1, 0, 0, labelled=seen, holdout=table(["b"], [[2]])).bought
    assert bought is not None and set(bought.columns) == {"features"} and len(bought) == 2


def test_coreset_buys_nothing_beside_a_row_that_is_held_out(tmp_path: Path) -> None:
    matrix_ND = np.array([[0, 0], [10, 0], [10, 0.25], [3, 0], [0, 3]], dtype=np.float16)
    names = builders.ids(5)
    path = builders.parquet(tmp_path / "pool.parquet", {"id": names, "features": builders.vectors(matrix_ND)})
    given = Given(2, 0, 1, labelled=table(names[:1], matrix_ND[:1]), holdout=table(names[1:2], matrix_ND[1:2]))
    assert set(picked(path, "coreset", given, names[:2])) == {names[3], names[4]}


@pytest.mark.parametrize("part", ["holdout", "skipped"])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_a_part_in_training_keeps_picks_apart_as_one_with_does(
    name: str, part: str, tmp_path: Path
) -> None:
    path, matrix_ND, names, labels = builders.features_pool(tmp_path, files=(90, 60), dim=5)
    head = Head.linear(np.random.default_rng(0).normal(size=(4, 5)), np.zeros(4), sorted(set(labels)))
    strategy = {"name": name, **({"epochs": 10} if name.endswith("gcn") else {})}
    whole = Given(12, 0, 1, labelled=table(names[:40], matrix_ND[:40]), head=head)
    apart = {part: table(names[10:40], matrix_ND[10:40])}
    parts = Given(12, 0, 1, labelled=table(names[:10], matrix_ND[:10]), head=head, **apart)
    assert picked(path, strategy, parts, names[:40]) == picked(path, strategy, whole, names[:40])
