"""A step of the descent, by hand: rates, momentum, clipping, and whose statistics batch norm uses."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from alray.runtime import Worker
from alray.training import FineTune, LpFt, descent
from alray.training.classifier import Classifier
from alray.training.descent import Descent


def model() -> Classifier:
    """Return a classifier of one weight in its body and one in its layer, and a bias that gets no gradient."""
    body, layer = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        body.weight.fill_(3.0)
        layer.weight.fill_(3.0)
    return Classifier(body, layer)  # type: ignore[arg-type]


def weights(found: Classifier) -> list[float]:
    return [p.item() for p in found.parameters()]


def taken(settings: FineTune, slopes: list[tuple[float, float]], steps: int = 10) -> list[list[float]]:
    """Return the two weights after each step with the given slopes of body and layer."""
    moving, out = model(), []
    descending = Descent(settings, moving)
    for step, pair in enumerate(slopes):
        for parameter, slope in zip(moving.parameters(), pair, strict=True):
            parameter.grad = torch.full_like(parameter, slope)
        descending.set_rates(0, step, steps)
        descending.step()
        out.append(weights(moving))
    return out


CONSTANT: dict[str, Any] = {"lr": 0.1, "schedule": "constant", "weight_decay": 0}


def test_the_layer_has_a_rate_of_its_own() -> None:
    assert taken(FineTune(**CONSTANT, head_lr=0.5), [(1.0, 1.0)]) == [pytest.approx([2.9, 2.5])]
    assert taken(FineTune(**CONSTANT), [(1.0, 1.0)]) == [pytest.approx([2.9, 2.9])]


def test_nesterov_looks_ahead_by_its_momentum() -> None:
    # v1 = 1; step lr·(1 + 0.9·1) = 0.19. v2 = 0.9 + 2 = 2.9; step lr·(2 + 0.9·2.9) = 0.461.
    plain = [pytest.approx([2.9] * 2), pytest.approx([2.9 - 0.29] * 2)]
    ahead = [pytest.approx([2.81] * 2), pytest.approx([2.81 - 0.461] * 2)]
    assert taken(FineTune(**CONSTANT), [(1.0, 1.0), (2.0, 2.0)]) == plain
    assert taken(FineTune(**CONSTANT, nesterov=True), [(1.0, 1.0), (2.0, 2.0)]) == ahead


def test_a_long_gradient_is_cut_to_the_given_length_and_a_short_one_is_not() -> None:
    clipped = FineTune(**CONSTANT, clip_norm=1.0)
    assert taken(clipped, [(3.0, 4.0)]) == [pytest.approx([3 - 0.06, 3 - 0.08], abs=1e-6)]  # of length 5
    assert taken(clipped, [(0.3, 0.4)]) == [pytest.approx([3 - 0.03, 3 - 0.04], abs=1e-6)]


def test_rates_by_hand() -> None:
    steps = FineTune(schedule="steps", milestones=[2, 3], gamma=0.5)
    assert [descent.factor(steps, epoch, 7, 8) for epoch in range(4)] == [1.0, 1.0, 0.5, 0.25]
    assert descent.factor(FineTune(schedule="constant"), 5, 7, 8) == 1.0
    assert descent.factor(FineTune(), 0, 2, 8) == pytest.approx(0.5 + math.sqrt(2) / 4)
    assert descent.factor(FineTune(schedule="cosine_7_16"), 0, 8, 8) == pytest.approx(0.19509, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"nesterov": True, "optimizer": "adamw"}, "`nesterov` needs `optimizer: sgd`"),
        ({"nesterov": True, "momentum": 0}, "a `momentum` above 0"),
        ({"schedule": "steps"}, r"these are steps and \[\]"),
        ({"milestones": [3]}, r"these are cosine and \[3\]: give both, or neither"),
        ({"schedule": "steps", "milestones": [0]}, "greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    for recipe in (FineTune, LpFt):
        with pytest.raises(ValidationError, match=said):
            recipe(**settings)


# Batch norm


def norms() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def worker(device: str, world: int) -> Worker:
    return SimpleNamespace(device=torch.device(device), world=world)  # type: ignore[return-value]


@pytest.mark.parametrize(("device", "world", "shared"), [("cuda", 2, True), ("cuda", 1, False), ("cpu", 2, False)])
def test_batch_norms_share_their_statistics_on_several_gpus_alone(device: str, world: int, shared: bool) -> None:
    before = norms()
    names = list(before.state_dict())
    found = descent.placed(before, worker(device, world))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in found.modules()) is shared
    assert list(found.state_dict()) == names  # a checkpoint does not tell how many workers wrote it
    last = next(iter(found.parameters())).is_contiguous(memory_format=torch.channels_last)
    assert last is (device == "cuda")


def test_a_quiet_norm_neither_uses_nor_changes_statistics_of_the_batch() -> None:
    net, pictures = norms(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        fixed = net.eval()(pictures)
        net.train()
        with descent.quiet_norms(net, True):
            assert torch.equal(net(pictures), fixed)
        net.train()
        before: Tensor = net.state_dict()["1.running_mean"].clone()
        with descent.quiet_norms(net, False):
            assert not torch.allclose(net(pictures), fixed)
    assert not torch.equal(net.state_dict()["1.running_mean"], before)
