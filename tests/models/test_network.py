"""A backbone and a head as one model: the logits that the head gives to the backbone's features."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from alray.errors import ModelError
from alray.models import Head
from alray.models import backbone as backbones
from alray.models.backbone import BackboneConfig
from alray.models.network import Network

CONFIG = BackboneConfig(backbone="small_backbone:make", image_size=8)


def head(kind: str, dim: int = 16) -> Head:
    rng = np.random.default_rng(0)
    shapes = {"weight": (3, 5), "bias": (3,), "hidden_weight": (5, dim), "hidden_bias": (5,)}
    if kind == "linear":
        shapes = {"weight": (3, dim), "bias": (3,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Head(kind, ("a", "b", "c"), arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_it_is_the_head_on_the_backbone(kind: str) -> None:
    network = Network(CONFIG, head(kind), seed=3)
    pictures = torch.randint(0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    body = backbones.load(CONFIG, 3)
    with torch.no_grad():
        wanted = network.head.logits(body(pictures))
        found = network.module(torch.device("cpu"))(pictures)
    torch.testing.assert_close(found, wanted)
    assert not network.module(torch.device("cpu")).training
    assert network.steps() == body.transform


def test_equal_networks_are_loaded_once() -> None:
    one, same = Network(CONFIG, head("linear")), pickle.loads(pickle.dumps(Network(CONFIG, head("linear"))))
    assert one == same and hash(one) == hash(same) and one != Network(CONFIG, head("linear"), seed=1)
    cpu = torch.device("cpu")
    assert one.module(cpu) is same.module(cpu)
    assert one.module(cpu) is not Network(CONFIG, head("mlp")).module(cpu)


def test_a_head_of_another_size_is_refused() -> None:
    with pytest.raises(ModelError, match=r"takes features of size 7; `backbone` small_backbone:make makes 16"):
        Network(CONFIG, head("linear", dim=7)).steps()
