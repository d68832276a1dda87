"""An epoch's plan: every row once, the same steps for any number of workers, disjoint shares."""

import numpy as np
import pytest

from alray.training import plan


@pytest.mark.parametrize(("rows", "batch"), [(128, 32), (65, 64), (7, 3), (1, 8), (100, 1)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_is_used_once_and_all_workers_take_the_same_steps(rows, batch, world):
    batches = plan.epoch_batches(rows, batch, seed=0, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
    assert len(batches) == plan.steps(rows, batch) == -(-rows // batch)
    sizes = [len(b) for b in batches]
    assert max(sizes) <= batch and max(sizes) - min(sizes) <= 1
    for whole in batches:
        shares = [plan.share(whole, rank, world).tolist() for rank in range(world)]
        assert [row for share in shares for row in share] == whole.tolist()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(**of):
        return np.concatenate(plan.epoch_batches(50, 10, **of)).tolist()

    assert order(seed=0, epoch=1) == order(seed=0, epoch=1)
    assert order(seed=0, epoch=1) != order(seed=0, epoch=2) and order(seed=0, epoch=1) != order(seed=1, epoch=1)


def test_windows_keep_the_steps_in_order():
    shares = [np.arange(4) + 4 * i for i in range(5)]
    groups = plan.windows(shares, 8)
    assert [len(g) for g in groups] == [2, 2, 1]
    assert np.concatenate([part for g in groups for part in g]).tolist() == list(range(20))
    assert len(plan.windows([np.arange(9)], 4)) == 1
