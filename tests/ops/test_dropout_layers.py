"""Dropout layers as hooks: explicit passes by hand, batch norm that stays as it is, and rows that are alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alray import seeds
from alray.ops import dropout_layers

KEY = (0, "test", 3)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(6)
        norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Dropout2d(0.5), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.25), nn.Linear(24, 4), nn.Dropout(0.0),
        )  # fmt: skip
    return net.eval()


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def by_hand(net: nn.Sequential, x: Tensor, draw: int) -> Tensor:
    """Return one pass with masks drawn here: channels by the fourth layer's, units by the seventh's."""
    channels = seeds.generator(*KEY, draw, "3").random((6, 1, 1)) >= 0.5
    units = seeds.generator(*KEY, draw, "6").random((24,)) >= 0.25
    with torch.no_grad():
        x = net[:3](x) * torch.from_numpy(channels).float() * 2
        return net[7](net[4:6](x) * torch.from_numpy(units).float() / 0.75)


def test_passes_are_those_with_masks_by_hand() -> None:
    net, x = network(), pictures(70)
    found = list(dropout_layers.passes(net, x, 5, KEY))
    assert len(found) == 5
    for draw, logits_NC in enumerate(found):
        np.testing.assert_allclose(logits_NC, by_hand(net, x, draw), atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_p24_batch_norm_stays_in_evaluation_and_its_buffers_as_they_are() -> None:
    """P24: nothing of the network is changed, and no mode is switched, not even while it is asked."""
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = list[bool]()
    net[1].register_forward_hook(lambda layer, x, y: modes.append(layer.training))
    list(dropout_layers.passes(net, pictures(5) * 100, 3, KEY))
    assert modes == [False] * 3 and not any(layer.training for layer in net.modules())
    after = net.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert "num_batches_tracked" in " ".join(before)


def test_after_a_pass_the_network_leaves_nothing_out_even_if_it_failed() -> None:
    net, x = network(), pictures(5)
    plain = dropout_layers.logits(net, x)
    list(dropout_layers.passes(net, x, 2, KEY))
    assert torch.equal(dropout_layers.logits(net, x), plain)
    with pytest.raises(RuntimeError), dropout_layers.thinned(net, KEY, 0):
        net(torch.zeros(1))
    assert torch.equal(dropout_layers.logits(net, x), plain)


def test_layers_that_leave_nothing_out_do_not_count() -> None:
    assert list(dropout_layers.layers_of(network())) == ["3", "6"]
    assert dropout_layers.layers_of(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))) == {}


@pytest.mark.parametrize("count", [1, 7, 64, 65])
def test_a_row_has_the_same_bits_beside_any_others(count: int) -> None:
    net, x = network(), pictures(150)
    whole = torch.stack(list(dropout_layers.passes(net, x, 3, KEY)))
    part = torch.stack(list(dropout_layers.passes(net, x[20:][:count], 3, KEY)))
    assert torch.equal(part, whole[:, 20:][:, :count])


def test_masks_are_the_keys_and_the_global_generator_is_not_asked() -> None:
    net, x, state = network(), pictures(4), torch.random.get_rng_state()
    one, same = (torch.stack(list(dropout_layers.passes(net, x, 3, KEY))) for _ in range(2))
    others = [torch.stack(list(dropout_layers.passes(net, x, 3, key))) for key in [(1, "test", 3), (0, "test", 4)]]
    assert torch.equal(one, same) and not any(torch.equal(one, other) for other in others)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_layer_that_leaves_everything_out() -> None:
    net = nn.Sequential(nn.Dropout(1.0)).eval()
    assert next(dropout_layers.passes(net, torch.ones(2, 3), 1, KEY)).tolist() == [[0, 0, 0]] * 2
