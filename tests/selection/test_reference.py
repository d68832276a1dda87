"""The labels that a one-off selection keeps from its head."""

from __future__ import annotations

import logging
from pathlib import Path

import builders
import numpy as np
import pytest

from alray.models import Head
from alray.selection import select
from alray.selection.reference import kept_back
from alray.table import as_ids


def test_a_share_by_id_and_seed_alone() -> None:
    ids = as_ids(builders.ids(2000))
    back = kept_back(ids, 3, 0.2)
    assert 0.17 < back.mean() < 0.23
    again = kept_back(ids[::-1], 3, 0.2)[::-1]
    fewer = kept_back(ids[:500], 3, 0.2)
    assert (again == back).all() and (fewer == back[:500]).sum() >= 498  # all but a first or a last one
    assert (kept_back(ids, 4, 0.2) != back).any()


@pytest.mark.parametrize("share", [1e-9, 0.2, 0.999999])
@pytest.mark.parametrize("rows", [2, 3, 7])
def test_neither_none_nor_all(rows: int, share: float) -> None:
    assert 0 < kept_back(as_ids(builders.ids(rows)), 0, share).sum() < rows


def test_nothing_is_kept_back_of_one_row_or_for_no_share() -> None:
    assert not kept_back(as_ids(["a"]), 0, 0.5).any()
    assert not kept_back(as_ids([]), 0, 0.5).any()
    assert not kept_back(as_ids(builders.ids(9)), 0, 0.0).any()


def test_a_given_head_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool, _, ids, labels = builders.features_pool(tmp_path)
    known = dict(zip(ids[:40], labels[:40], strict=True))
    head = Head.linear(np.eye(4, 8, dtype=np.float32), np.zeros(4, np.float32), [f"class-{c}" for c in range(4)])
    with caplog.at_level(logging.WARNING, logger="alray"):
        assert len(select("isal", pool, budget=5, labels=known, head=head).picks) == 5
    assert "of the 40 labels as its reference set" in caplog.text and "Leave the head out" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="alray"):
        select("margin", pool, budget=5, labels=known, head=head)
    assert "reference" not in caplog.text


def test_strategies_without_a_reference_set_train_on_every_label(tmp_path: Path) -> None:
    pool, _, ids, labels = builders.features_pool(tmp_path)
    known = dict(zip(ids[:40], labels[:40], strict=True))
    whole = select("margin", pool, budget=5, labels=known).head
    assert whole.digest() != select("isal", pool, budget=5, labels=known).head.digest()
