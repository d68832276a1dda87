"""Small ResNets: their size by hand, their shapes, their weights from seeds, files and folders."""

import pytest
import torch
from torch import nn

from alray.errors import ModelError
from alray.models import backbone, small_resnet
from alray.models.backbone import BackboneConfig, load

MULTIPLY_ADDS = {
    "resnet8": 12.5e6,
    "resnet8_wide": 49.1e6,
    "resnet14": 26.7e6,
    "resnet20": 40.8e6,
    "resnet18_small": 555.4e6,
}


def multiply_adds(model, size):
    """Return the multiply-adds of the convolutions for one picture."""
    counted = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, out: counted.append(out[0].numel() * layer.weight[0].numel()))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return sum(counted)


@pytest.mark.parametrize("name", small_resnet.NAMES)
def test_the_docstring_says_what_a_picture_costs(name):
    found = multiply_adds(small_resnet.build(name), 32)
    assert found == pytest.approx(MULTIPLY_ADDS[name], rel=0.005)
    assert f"{name:14} {found / 1e6:8.1f} M" in small_resnet.__doc__


def test_resnet20_is_the_papers_but_for_its_shortcuts():
    """He et al., table 6: 0.27 million parameters, with shortcuts that have none (option A)."""
    model = small_resnet.build("resnet20")
    weighted = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in n]
    assert len(weighted) == 20
    without = sum(p.numel() for n, p in model.named_parameters() if "downsample" not in n)
    assert without == 269_722  # the paper's 0.27 M, as Idelbayev counts it too


@pytest.mark.parametrize("name", small_resnet.NAMES)
def test_pictures_of_any_small_size_are_taken(name):
    for size in (8, 16):
        model = load(BackboneConfig(backbone=name, image_size=size), seed=0)
        with torch.no_grad():
            assert model(torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape == (2, model.dim)


def test_the_default_size_is_32_and_the_seed_decides_the_weights():
    first, again, other = (load(BackboneConfig(backbone="resnet8"), seed=s) for s in (0, 0, 1))
    assert first.transform.crop == first.transform.resize == 32 and first.dim == 64
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_a_file_is_read_with_or_without_its_classification_layer(tmp_path):
    torch.manual_seed(5)
    model = small_resnet.build("resnet8")
    for name, state in {
        "whole": model.state_dict(),
        "bare": load(BackboneConfig(backbone="resnet8"), 0).body.state_dict(),
    }.items():
        torch.save(state, tmp_path / f"{name}.pt")
        loaded = load(BackboneConfig(backbone="resnet8", weights=str(tmp_path / f"{name}.pt")), seed=9)
        assert torch.equal(loaded.body.conv1.weight, state["conv1.weight"])


def test_a_saved_folder_is_weights_again(tmp_path):
    model = load(BackboneConfig(backbone="resnet14", image_size=16), seed=4)
    backbone.save(model, tmp_path)
    again = load(BackboneConfig(backbone="resnet14", weights=str(tmp_path)), seed=0)
    assert again.fingerprint == model.fingerprint and again.transform.crop == 16


def test_torchvisions_weights_are_not_for_them():
    with pytest.raises(ModelError, match=r"`weights` is 'IMAGENET1K_V1', a name .* `backbone` is 'resnet8'.*folder"):
        load(BackboneConfig(backbone="resnet8", weights="IMAGENET1K_V1"), seed=0)
