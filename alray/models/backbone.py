"""Backbone: a torchvision classifier or a small ResNet without its last layer, or a model of the user's own.

Pictures in, features out. Nothing here is ever sent to a worker: workers get the config and load for themselves.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from alray import seeds, storage
from alray.config import Config
from alray.errors import ModelError, nearest
from alray.models import small_resnet, tensor_file, transform, weights
from alray.models.transform import Augmentation, Transform

log = logging.getLogger(__name__)

IMAGE_SIZE = 224
META = "meta.json"
BACKBONE_FILE = "backbone.safetensors"
SCHEMA = 1


class BackboneConfig(Config):
    """Which backbone, with which weights, on pictures of which size."""

    backbone: str = "resnet18"  # a torchvision classifier, a small ResNet, or `package.module:function`
    weights: str = "none"  # torchvision's name, a .safetensors/.pt file, a fine-tuned checkpoint's folder, or `none`
    image_size: int | None = Field(None, ge=1, le=4096)  # pixels; default: the weights' own, else 224 (small ones: 32)


def plain(config: BackboneConfig) -> BackboneConfig:
    """Return only what names the backbone: a subclass may hold more, such as where features are stored."""
    return BackboneConfig(**{field: getattr(config, field) for field in BackboneConfig.model_fields})


class Backbone(nn.Module):
    """A model from pictures, uint8 or fp32 in 0…1, [N, 3, H, W], to features, [N, D]."""

    mean_311: Tensor
    std_311: Tensor

    def __init__(self, body: nn.Module, *, name: str, steps: Transform, dim: int) -> None:
        super().__init__()
        self.body, self.name, self.transform, self.dim = body, name, steps, dim
        self.register_buffer("mean_311", torch.tensor(steps.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_311", torch.tensor(steps.std).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features, [N, D]; scaling and normalisation happen here, on whatever device this is."""
        scaled = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
        features: Tensor = self.body((scaled - self.mean_311) / self.std_311)
        return features.flatten(1)

    def train_transform(self, picture: Image.Image, kind: Augmentation, seed: int, epoch: int, row_id: str) -> Tensor:
        """Return the picture as it is trained on in this epoch, uint8 [3, crop, crop]: the same on any worker."""
        stream = transform.stream_of(seed, epoch, row_id)
        return self.transform.augment(self.transform.shrink(picture), kind, stream)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the model's name, its weights and its transform, as they were when first asked for."""
        found = hashlib.sha256(json.dumps([self.name, self.transform.describe()], sort_keys=True).encode())
        for name, tensor in sorted(self.body.state_dict().items()):
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def load(config: BackboneConfig, seed: int) -> Backbone:
    """Build the backbone that `config` names, on the CPU and in eval mode. `seed` decides the weights `none`."""
    steps = _transform(config)
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seeds.key(seed, "backbone") & (2**63 - 1))
    try:
        body = _build(config, steps, seed)
    finally:
        torch.default_generator.set_state(before)
    dropped = _drop_classifier(body, thousand=_is_torchvision(config.backbone))
    if _is_folder(config.weights) or weights.is_file(config.weights):
        uri = storage.join(config.weights, BACKBONE_FILE) if _is_folder(config.weights) else config.weights
        weights.fill(body, weights.read(uri), dropped=dropped, uri=uri)
    body.eval()
    return Backbone(body, name=config.backbone, steps=steps, dim=_dim(body, config, steps)).eval()


def _build(config: BackboneConfig, steps: Transform, seed: int) -> nn.Module:
    if ":" in config.backbone:
        return _own(config.backbone, seed)
    return small_resnet.build(config.backbone) if config.backbone in small_resnet.NAMES else _torchvision(config, steps)


def absolute(name: str) -> str:
    """Return `weights: name` as it reads in any folder: a local file or folder by its absolute path."""
    if not (_is_folder(name) or weights.is_file(name)):
        return name
    local = storage.local_path(name)
    return name if local is None else str(local)


def save(backbone: Backbone, folder: Path, *, state: Mapping[str, Tensor] | None = None, **more: Any) -> None:
    """Write weights and meta.json into a local folder that `weights:` can name later; `more` goes into the latter.

    `state` are other weights than the backbone has now, such as those of its best epoch.
    """
    arrays = {n: t.detach().cpu().numpy() for n, t in (state or backbone.body.state_dict()).items()}
    tensor_file.save(str(folder / BACKBONE_FILE), arrays, {"schema": str(SCHEMA), "backbone": backbone.name})
    meta = {"schema": SCHEMA, "backbone": backbone.name, "dim": backbone.dim}
    storage.write_json(str(folder / META), {**meta, "transform": backbone.transform.describe(), **more})


def _transform(config: BackboneConfig) -> Transform:
    if _is_folder(config.weights):
        found = _meta_transform(config)
    elif _is_named(config):
        found = Transform.of_preset(_weights_enum(config).transforms())
    else:
        small = config.backbone in small_resnet.NAMES
        return Transform.of_size(config.image_size or (small_resnet.IMAGE_SIZE if small else IMAGE_SIZE))
    return found.to_size(config.image_size) if config.image_size else found


def _meta_transform(config: BackboneConfig) -> Transform:
    uri = storage.join(config.weights, META)
    meta = storage.read_json(uri)
    if meta.get("backbone") != config.backbone:
        raise ModelError(
            f"`weights` {config.weights} is a checkpoint of {meta.get('backbone')}; `backbone` says {config.backbone}. "
            "Set both to the same model."
        )
    return Transform.of_description(meta["transform"])


def _is_folder(name: str) -> bool:
    """Say whether `weights: name` means a folder: anything with a slash that is not a weights file."""
    return "/" in name and not weights.is_file(name)


def _is_named(config: BackboneConfig) -> bool:
    return config.weights != "none" and not weights.is_file(config.weights) and not _is_folder(config.weights)


def _is_torchvision(name: str) -> bool:
    return ":" not in name and name not in small_resnet.NAMES


# torchvision's models


def _torchvision(config: BackboneConfig, steps: Transform) -> nn.Module:
    from torchvision import models

    _check_name(config.backbone)
    settings: dict[str, Any] = {}
    if config.backbone in ("inception_v3", "googlenet"):
        settings |= {"aux_logits": False, "init_weights": True}
    if not _is_named(config):
        if config.backbone.startswith("vit_"):
            settings["image_size"] = steps.crop  # its position embedding has one entry a patch
        return _built(models.get_model, config.backbone, weights=None, **settings)
    try:
        return _built(models.get_model, config.backbone, weights=_weights_enum(config), **settings)
    except (OSError, RuntimeError) as error:  # no network, a proxy, a broken download
        raise ModelError(
            f"Could not get the weights {config.weights} of {config.backbone}: {error}. They are downloaded on first "
            "use; where that is not possible, fetch the file elsewhere and set `weights` to its path."
        ) from error


def _built(build: Callable[..., Any], *args: Any, **settings: Any) -> nn.Module:
    model = build(*args, **settings)
    assert isinstance(model, nn.Module)
    return model


def _check_name(name: str) -> None:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        small = ", ".join(small_resnet.NAMES)
        raise ModelError(
            f"`backbone` is {name!r}. Expected a classifier of torchvision's ({len(known)} of them, such as resnet18, "
            f"vit_b_16, convnext_tiny), a small one ({small}) or `package.module:function`."
            f"{nearest(name, [*known, *small_resnet.NAMES])}"
        )


def _weights_enum(config: BackboneConfig) -> Any:
    from torchvision import models

    if not _is_torchvision(config.backbone):
        raise ModelError(
            f"`weights` is {config.weights!r}, a name of torchvision's, but `backbone` is {config.backbone!r}. "
            "Expected `none`, a .safetensors or .pt file, or a checkpoint's folder."
        )
    _check_name(config.backbone)
    known = models.get_model_weights(config.backbone)
    name = config.weights.rsplit(".", 1)[-1]  # ResNet18_Weights.IMAGENET1K_V1 means the same
    if name not in known.__members__:
        raise ModelError(
            f"`weights` is {config.weights!r}. Expected one of {', '.join(known.__members__)} for {config.backbone}, a "
            f".safetensors or .pt file, a checkpoint's folder, or `none`.{nearest(name, known.__members__)}"
        )
    return known[name]


# A model of the user's own


def _own(name: str, seed: int) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"`backbone` is {name!r}, but {module_name!r} cannot be imported: {error}. Expected "
            "`package.module:function` that every worker can import."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ModelError(
            f"`backbone` is {name!r}, but {module_name} has no function {function_name!r}."
            f"{nearest(function_name, vars(module))} Expected `function(seed)` returning a torch module."
        )
    model = function(seed)
    if not isinstance(model, nn.Module):
        raise ModelError(f"`backbone` {name} returned a {type(model).__name__}. Expected a torch.nn.Module.")
    return model


def _drop_classifier(body: nn.Module, *, thousand: bool) -> str | None:
    """Put an identity in the classification layer's place and return the layer's name.

    That is the last layer of torchvision's thousand outputs (SqueezeNet's is a convolution); in other models, `fc`.
    """
    name: str | None = "fc" if isinstance(getattr(body, "fc", None), nn.Linear) else None
    if thousand:
        name = [n for n, layer in body.named_modules() if _outputs(layer) == 1000][-1]
    if name is not None:
        parent, _, last = name.rpartition(".")
        setattr(body.get_submodule(parent), last, nn.Identity())
    return name


def _outputs(layer: nn.Module) -> int | None:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) else None


@torch.no_grad()
def _dim(body: nn.Module, config: BackboneConfig, steps: Transform) -> int:
    """Return D, by one forward pass of a blank picture, which also shows that the model takes this size."""
    try:
        features = body(torch.zeros(1, 3, steps.crop, steps.crop))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ModelError(
            f"`backbone` {config.backbone} does not take pictures of {steps.crop} × {steps.crop} pixels: {error} "
            "Set `image_size` to a size that it takes."
        ) from error
    if not isinstance(features, Tensor) or features.dim() < 2 or len(features) != 1:
        raise ModelError(f"`backbone` {config.backbone} does not return one tensor [N, D] for N pictures.")
    return int(features.flatten(1).shape[1])
