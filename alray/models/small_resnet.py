"""Small ResNets for small pictures: what torchvision's classifiers, made for 224 pixels, are too large and coarse for.

A ResNet of ImageNet's shrinks a picture of 32 pixels to one of 1 before its last stage. These keep its detail: a 3×3
stem of stride 1 and no max-pool. Multiply-adds (two FLOPs each) of one picture of 32 × 32 pixels, a quarter of
them at 16 pixels; the parameters below the classification layer; and D:

    resnet8            12.5 M     0.08 M     64    He et al., CVPR 2016, §4.2: 6n + 2 layers with n = 1
    resnet8_wide       49.1 M     0.31 M    128    the same, twice as wide
    resnet14           26.7 M     0.17 M     64    n = 2
    resnet20           40.8 M     0.27 M     64    n = 3
    resnet18_small    555.4 M    11.17 M    512    torchvision's resnet18 with the small stem, as CIFAR papers have it

Shortcuts that change the width are 1×1 convolutions (the paper's option B), made of torchvision's own blocks. Nobody
publishes weights of these under torchvision's names: they start from `none`, a file, or a checkpoint's folder.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

IMAGE_SIZE = 32
"""Pixels of a picture when nothing says otherwise."""

CLASSES = 10
"""Outputs of the classification layer, which is taken away again: only files that have one must find it here."""

STAGES = {"resnet8": (1, 16), "resnet8_wide": (1, 32), "resnet14": (2, 16), "resnet20": (3, 16)}
"""Blocks in each of three stages, and the width of the first; each further stage is twice as wide."""

NAMES = (*STAGES, "resnet18_small")


def build(name: str) -> nn.Module:
    """Return the network of one of `NAMES`, pictures [N, 3, S, S] to [N, `CLASSES`]; its last layer is called `fc`.

    The weights come from torch's global generator.
    """
    model = _resnet18() if name == "resnet18_small" else _three_stages(*STAGES[name])
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return model


def _three_stages(blocks: int, width: int) -> nn.Module:
    layers = {
        "conv1": _stem(width),
        "bn1": nn.BatchNorm2d(width),
        "relu": nn.ReLU(inplace=True),
        "layer1": _stage(width, width, blocks, stride=1),
        "layer2": _stage(width, 2 * width, blocks, stride=2),
        "layer3": _stage(2 * width, 4 * width, blocks, stride=2),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(4 * width, CLASSES),
    }
    return nn.Sequential(OrderedDict(layers))


def _stem(width: int) -> nn.Conv2d:
    return nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)


def _stage(before: int, width: int, blocks: int, *, stride: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, conv1x1

    short = nn.Sequential(conv1x1(before, width, stride), nn.BatchNorm2d(width)) if before != width else None
    first = BasicBlock(before, width, stride, short)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))


def _resnet18() -> nn.Module:
    from torchvision.models import resnet18

    model: nn.Module = resnet18(weights=None, num_classes=CLASSES)
    model.conv1, model.maxpool = _stem(64), nn.Identity()
    return model
