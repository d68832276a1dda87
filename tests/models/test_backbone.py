"""Backbones: named, seeded, loaded whole or refused with the names that do not fit."""

import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from alray.errors import ModelError
from alray.models import backbone
from alray.models.backbone import BackboneConfig, load

SMALL = {"backbone": "mobilenet_v3_small", "image_size": 32}


def tiny(seed):
    """A backbone of a user's own, used below as `module:tiny`."""
    model = nn.Module()
    model.conv, model.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 7)
    model.forward = lambda x: model.fc(model.conv(x).mean((2, 3)))
    return model


def wrong(seed):
    return "a model"


@pytest.fixture
def own(monkeypatch):
    """This module under a name that can be imported."""
    import sys
    import types

    module = types.ModuleType("house_models")
    module.tiny, module.wrong = tiny, wrong
    monkeypatch.setitem(sys.modules, "house_models", module)
    return "house_models"


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        ("resnet18", 32, 512),
        ("vit_b_16", 32, 768),
        ("squeezenet1_1", 32, 512),
        ("mobilenet_v3_small", 32, 1024),
        ("densenet121", 32, 1024),
        ("googlenet", 32, 1024),
        ("swin_t", 32, 768),
        ("resnet8", 16, 64),
        ("resnet18_small", 16, 512),
    ],
)
def test_a_classifier_by_name_gives_features(name, size, dim):
    model = load(BackboneConfig(backbone=name, image_size=size), seed=0)
    with torch.no_grad():
        features = model(torch.zeros(2, 3, size, size, dtype=torch.uint8))
    assert features.shape == (2, dim) and model.dim == dim and not model.training


def test_the_weights_none_are_a_function_of_the_seed():
    torch.manual_seed(1)
    first = load(BackboneConfig(**SMALL), seed=0)
    before = torch.default_generator.get_state()
    again, other = load(BackboneConfig(**SMALL), seed=0), load(BackboneConfig(**SMALL), seed=1)
    assert torch.equal(torch.default_generator.get_state(), before)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert load(BackboneConfig(**{**SMALL, "image_size": 64}), seed=0).fingerprint != first.fingerprint


def test_bytes_and_fractions_give_the_same_features():
    model = load(BackboneConfig(**SMALL), seed=0)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(pictures), model(pictures.float() / 255))


def test_a_picture_goes_through_both_transforms():
    model = load(BackboneConfig(**SMALL), seed=0)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    assert model.transform(picture).shape == (3, 32, 32)
    one = model.train_transform(picture, "crop", seed=0, epoch=1, row_id="a")
    assert torch.equal(one, model.train_transform(picture, "crop", seed=0, epoch=1, row_id="a"))
    assert not torch.equal(one, model.train_transform(picture, "crop", seed=0, epoch=2, row_id="a"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_weights_file_is_read_with_or_without_its_classification_layer(tmp_path, suffix, whole):
    from torchvision import models

    torch.manual_seed(3)
    model = models.get_model("mobilenet_v3_small")
    state = {k: v for k, v in model.state_dict().items() if whole or not k.startswith("classifier.3.")}
    path = tmp_path / f"w{suffix}"
    safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    loaded = load(BackboneConfig(**SMALL, weights=str(path)), seed=0)
    assert torch.equal(loaded.body.features[0][0].weight, model.features[0][0].weight)
    assert loaded.fingerprint == load(BackboneConfig(**SMALL, weights=str(path)), seed=9).fingerprint


def test_a_state_dict_from_data_parallel_loses_its_prefix(tmp_path):
    state = load(BackboneConfig(**SMALL), seed=2).body.state_dict()
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "w.pt")
    loaded = load(BackboneConfig(**SMALL, weights=str(tmp_path / "w.pt")), seed=0)
    assert loaded.fingerprint == load(BackboneConfig(**SMALL), seed=2).fingerprint


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    state = load(BackboneConfig(**SMALL), seed=0).body.state_dict()
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"missing conv1.weight, .* in all\); unexpected features.0.0.weight"):
        load(BackboneConfig(backbone="resnet18", image_size=32, weights=str(tmp_path / "w.pt")), seed=0)
    state["features.0.0.weight"] = torch.zeros(16, 3, 5, 5)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"features.0.0.weight \[16, 3, 5, 5\] instead of \[16, 3, 3, 3\]"):
        load(BackboneConfig(**SMALL, weights=str(tmp_path / "w.pt")), seed=0)
    state["features.0.0.weight"] = torch.full((16, 3, 3, 3), torch.nan)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"NaN or infinite numbers in features.0.0.weight"):
        load(BackboneConfig(**SMALL, weights=str(tmp_path / "w.pt")), seed=0)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


def test_a_pickle_is_refused_and_never_run(tmp_path):
    torch.save({"weights": Bomb()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    (tmp_path / "c.pt").write_bytes(b"garbage")
    (tmp_path / "d.pt").write_bytes(b"")
    for name in "abcd":
        with pytest.raises(ModelError, match="cannot be read as plain weights"):
            load(BackboneConfig(**SMALL, weights=str(tmp_path / f"{name}.pt")), seed=0)
    torch.save({"epoch": 3}, tmp_path / "e.pt")
    with pytest.raises(ModelError, match="holds no weights by name"):
        load(BackboneConfig(**SMALL, weights=str(tmp_path / "e.pt")), seed=0)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ModelError, match=r"`backbone` is 'resnet188'.*Did you mean `resnet18`\?"):
        load(BackboneConfig(backbone="resnet188"), seed=0)
    with pytest.raises(ModelError, match=r"a small one \(resnet8, .*Did you mean `resnet18_small`\?"):
        load(BackboneConfig(backbone="resnet18small"), seed=0)
    with pytest.raises(ModelError, match=r"one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT for resnet50.*Did you mean"):
        load(BackboneConfig(backbone="resnet50", weights="IMAGENET1K_V3"), seed=0)
    with pytest.raises(ModelError, match="Expected a classifier of torchvision's"):
        load(BackboneConfig(backbone="fcos_resnet50_fpn"), seed=0)


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    from torchvision import models

    def refuse(*args, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(models, "get_model", refuse)
    with pytest.raises(ModelError, match=r"Could not get the weights IMAGENET1K_V1 of resnet18: no route.*its path"):
        load(BackboneConfig(weights="IMAGENET1K_V1"), seed=0)


def test_a_size_that_the_model_does_not_take_is_named():
    with pytest.raises(ModelError, match=r"maxvit_t does not take pictures of 40 × 40 pixels.*Set `image_size`"):
        load(BackboneConfig(backbone="maxvit_t", image_size=40), seed=0)


def test_a_model_of_the_users_own_loses_its_fc(own):
    model = load(BackboneConfig(backbone=f"{own}:tiny", image_size=8), seed=0)
    assert model.dim == 4 and model(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    assert model.fingerprint == load(BackboneConfig(backbone=f"{own}:tiny", image_size=8), seed=0).fingerprint
    with pytest.raises(ModelError, match=r"has no function 'tyny'. Did you mean `tiny`\?"):
        load(BackboneConfig(backbone=f"{own}:tyny"), seed=0)
    with pytest.raises(ModelError, match=r"returned a str\. Expected a torch.nn.Module"):
        load(BackboneConfig(backbone=f"{own}:wrong"), seed=0)
    with pytest.raises(ModelError, match="'no_such_house' cannot be imported"):
        load(BackboneConfig(backbone="no_such_house:tiny"), seed=0)
    with pytest.raises(ModelError, match="a name of torchvision's, but `backbone` is"):
        load(BackboneConfig(backbone=f"{own}:tiny", weights="IMAGENET1K_V1"), seed=0)


def test_a_saved_folder_is_weights_again(tmp_path):
    model = load(BackboneConfig(**SMALL), seed=4)
    backbone.save(model, tmp_path, classes=["a"])
    again = load(BackboneConfig(backbone="mobilenet_v3_small", weights=str(tmp_path)), seed=0)
    assert again.fingerprint == model.fingerprint and again.transform == model.transform
    assert load(BackboneConfig(**{**SMALL, "image_size": 48}, weights=str(tmp_path)), seed=0).transform.crop == 48
    with pytest.raises(ModelError, match="is a checkpoint of mobilenet_v3_small; `backbone` says resnet18"):
        load(BackboneConfig(weights=str(tmp_path)), seed=0)
