"""What is advised where a strategy cannot have what it needs: a setting of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pytest

from alray.errors import StrategyError
from alray.models.head import Head
from alray.selection import select


@pytest.mark.parametrize(
    ("strategy", "remedy"),
    [
        ({"name": "bald", "where": "backbone"}, "where: hidden"),
        ({"name": "drop_query", "where": "backbone"}, "where: features"),
        ({"name": "isal", "params": "all_weights"}, "params: last_layer"),
        ({"name": "diverse", "base": {"name": "bald", "where": "backbone"}}, "base.where: hidden"),
    ],
)
def test_the_remedy_for_a_pool_without_pictures_is_the_strategys_own(
    strategy: dict[str, Any], remedy: str, tmp_path: Path
) -> None:
    path, matrix_ND, names, labels = builders.features_pool(tmp_path)
    head = Head.linear(matrix_ND[:4].astype("float32"), matrix_ND[:4, 0].astype("float32"), sorted(set(labels)))
    with pytest.raises(StrategyError, match=rf"features alone: `{remedy}`"):
        select(strategy, path, budget=3, labels=dict(zip(names[:40], labels[:40], strict=True)), head=head)
