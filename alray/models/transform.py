"""Transform: from a decoded picture to the square of bytes that a backbone takes, at test time and in training.

Pictures travel as uint8, a quarter of fp32's bytes; the backbone itself scales and normalises them. The test-time steps
(resize the shorter side, cut out the centre) are bit for bit those of torchvision's own classification presets. The
training steps are torchvision transforms v2, seeded by (seed, epoch, id), so that a picture is augmented the same way
whichever worker meets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from alray import seeds

Augmentation = Literal["none", "crop", "crop_flip"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SMALL = 64
"""Pictures up to this many pixels are used whole; larger ones lose the border as ImageNet models are tested."""

CROP_SCALE = (0.35, 1.0)
"""Area that a random resized crop keeps. torchvision's 0.08 is for millions of labels, not for hundreds."""

LONGEST = 8
"""Sides of a picture longer than this many times its other side are cut before resizing, which would enlarge them."""


@dataclass(frozen=True)
class Transform:
    """Resize the shorter side to `resize` pixels, keep the centre `crop` × `crop`; normalise by `mean` and `std`."""

    resize: int
    crop: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    @staticmethod
    def of_size(pixels: int) -> Transform:
        """Return the transform for weights that bring none: ImageNet's numbers, scaled to `pixels`."""
        return Transform(pixels if pixels <= SMALL else round(pixels * 256 / 224), pixels)

    @staticmethod
    def of_preset(preset: Any) -> Transform:
        """Return the transform that torchvision names for a set of weights."""
        return Transform(
            preset.resize_size[0],
            preset.crop_size[0],
            tuple(preset.mean),
            tuple(preset.std),
            preset.interpolation.value,
        )

    @staticmethod
    def of_description(description: dict[str, Any]) -> Transform:
        """Return the transform that `describe` described."""
        lists = {name: tuple(description[name]) for name in ("mean", "std")}
        return Transform(**{**description, **lists})

    def describe(self) -> dict[str, Any]:
        """Return the transform as JSON values: part of a backbone's fingerprint."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def to_size(self, pixels: int) -> Transform:
        """Return this transform for pictures of another size, with the same border left out."""
        return replace(self, crop=pixels, resize=round(pixels * self.resize / self.crop))

    def __call__(self, picture: Image.Image) -> Tensor:
        """Return the picture as the backbone is tested on it, uint8 [3, crop, crop]."""
        return self.centre(self.shrink(picture))

    def shrink(self, picture: Image.Image) -> Tensor:
        """Return the whole picture, its shorter side `resize` pixels, uint8 [3, h, w]: what training keeps."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as steps

        picture = _cut(picture.convert("RGB"))
        mode = InterpolationMode(self.interpolation)
        small = steps.resize(picture, [self.resize], interpolation=mode, antialias=True)
        pixels: Tensor = steps.pil_to_tensor(small)
        return pixels

    def centre(self, pixels: Tensor) -> Tensor:
        """Return the centre of a shrunk picture, uint8 [3, crop, crop]."""
        from torchvision.transforms.v2 import functional as steps

        out: Tensor = steps.center_crop(pixels, [self.crop, self.crop])
        return out

    def augment(self, pixels: Tensor, kind: Augmentation, stream: int) -> Tensor:
        """Return a shrunk picture as it is trained on, uint8 [3, crop, crop]; `stream` is its `seeds.key`."""
        from torchvision.transforms import v2

        if kind == "none":
            return self.centre(pixels)
        with _seeded(stream):
            if self.crop <= SMALL:
                out: Tensor = v2.RandomCrop(self.crop, padding=max(1, self.crop // 8))(pixels)
            else:
                out = v2.RandomResizedCrop(self.crop, scale=CROP_SCALE, antialias=True)(pixels)
            return v2.RandomHorizontalFlip()(out) if kind == "crop_flip" else out


def stream_of(seed: int, epoch: int, row_id: str) -> int:
    """Return the key of a row's augmentation in an epoch."""
    return seeds.key(seed, "augment", epoch, row_id)


def _cut(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    longest = LONGEST * min(width, height)
    if max(width, height) <= longest:
        return picture
    x, y = max(0, width - longest) // 2, max(0, height - longest) // 2
    return picture.crop((x, y, x + min(width, longest), y + min(height, longest)))


@contextmanager
def _seeded(stream: int) -> Iterator[None]:
    """Seed the global CPU generator, which is all that transforms v2 draw from, and put it back."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(stream & (2**63 - 1))
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
