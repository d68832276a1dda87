"""A row's side is a function of its id and the seed, and of nothing that happens later."""

from __future__ import annotations

from alray.campaign.splits import held_out, split

IDS = [f"row-{n}" for n in range(10_000)]


def test_the_share_is_kept_and_sides_are_fixed_for_life() -> None:
    out = held_out(IDS, seed=0, share=0.1)
    assert 0.09 < out.mean() < 0.11
    assert (held_out(IDS[5000:], seed=0, share=0.1) == out[5000:]).all()
    assert (held_out(IDS, seed=1, share=0.1) != out).any()


def test_a_larger_share_keeps_what_was_held_out() -> None:
    assert (held_out(IDS, 0, 0.2) >= held_out(IDS, 0, 0.1)).all()
    assert not held_out(IDS, 0, 0.0).any()


def test_split_divides_labels_sorted_by_id() -> None:
    labels = {i: "x" for i in reversed(IDS[:100])}
    parts = split(labels, 0, 0.3)
    assert list(parts.train) == sorted(parts.train)
    assert sorted([*parts.train, *parts.holdout]) == sorted(labels)
    assert parts.holdout
