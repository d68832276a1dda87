"""Rows that are held out: what the strategy and the recipe of each round are given, and what they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pytest

from alray import config, training
from alray.campaign import Settings, run
from alray.campaign.splits import held_out
from alray.selection import ResidentPool


def test_held_out_rows_reach_neither_the_strategy_nor_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids, labels = builders.image_pool(tmp_path / "pool", files=(40, 24))
    out = {i for i, held in zip(ids, held_out(ids, 1, 0.3), strict=True) if held}
    looked_at: list[tuple[set[str], set[str]]] = []
    trained: list[tuple[set[str], set[str]]] = []
    select, train = ResidentPool.select, training.run

    def noting_select(self: Any, strategy: Any, given: Any, **more: Any) -> Any:
        if given.labelled is not None:
            looked_at.append((set(given.labelled.ids), set(given.holdout.ids)))
        return select(self, strategy, given, **more)

    def noting_train(recipe: Any, rows: Any, *args: Any, **more: Any) -> Any:
        trained.append((set(rows.ids), set(more["holdout"].ids)))
        return train(recipe, rows, *args, **more)

    monkeypatch.setattr(ResidentPool, "select", noting_select)
    monkeypatch.setattr(training, "run", noting_train)
    raw = {
        "run": str(tmp_path / "run"),
        "seed": 1,
        "pool": path,
        "features": {"backbone": "torch.nn:Flatten", "image_size": 8, "path": str(tmp_path / "features")},
        "strategy": "alfa_mix",
        "training": {
            "holdout": 0.3,
            "recipe": {"name": "fine_tune", "epochs": 1, "augmentation": "none", "patience": 1},
        },
        "budget": {"initial": 20, "per_round": 10, "total": 40},
        "labeller": {"name": "oracle", "path": builders.labels_file(tmp_path / "oracle.csv", ids, labels)},
        "runtime": {"name": "local"},
    }
    assert run(config.parse(raw, Settings)).labels == 40
    assert [len(a) + len(b) for a, b in looked_at] == [20, 30]
    assert [len(a) + len(b) for a, b in trained] == [20, 30, 40]
    for used, judged in looked_at + trained:
        assert judged and judged <= out and not used & out
