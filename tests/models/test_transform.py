"""The test-time steps are torchvision's own; augmentation is a function of (seed, epoch, id)."""

import numpy as np
import pytest
import torch
from PIL import Image

from alray.models import transform
from alray.models.transform import Transform


def picture(width=40, height=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def test_the_steps_are_bit_for_bit_those_of_torchvisions_preset():
    from torchvision import models

    preset = models.get_weight("ResNet18_Weights.IMAGENET1K_V1").transforms()
    steps = Transform.of_preset(preset)
    given = picture(500, 300)
    ours = (steps(given).float() / 255 - torch.tensor(steps.mean).view(3, 1, 1)) / torch.tensor(steps.std).view(3, 1, 1)
    assert (steps.resize, steps.crop, steps.interpolation) == (256, 224, "bilinear")
    assert torch.equal(ours, preset(given))


def test_small_pictures_are_used_whole():
    assert (Transform.of_size(32).resize, Transform.of_size(224).resize) == (32, 256)
    given = picture(32, 32)
    assert torch.equal(Transform.of_size(32)(given).permute(1, 2, 0), torch.from_numpy(np.array(given)))


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (300, 20), (20, 300), (1, 5000)])
def test_every_shape_gives_a_square_of_bytes(size):
    out = Transform.of_size(32)(picture(*size))
    assert out.shape == (3, 32, 32) and out.dtype == torch.uint8


def test_a_very_long_picture_is_cut_before_it_is_enlarged():
    assert Transform.of_size(224).shrink(picture(3, 3000)).shape[1] <= transform.LONGEST * 256


def test_grey_and_transparent_pictures_become_three_channels():
    assert Transform.of_size(16)(picture().convert("L")).shape == (3, 16, 16)
    assert Transform.of_size(16)(picture().convert("RGBA")).shape == (3, 16, 16)


def test_a_transform_survives_its_description():
    steps = Transform(10, 8, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bicubic")
    assert Transform.of_description(steps.describe()) == steps
    assert Transform(256, 224).to_size(112) == Transform(128, 112)


@pytest.mark.parametrize("pixels", [16, 96])
@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
def test_augmentation_repeats_and_leaves_the_global_stream_alone(pixels, kind):
    steps = Transform.of_size(pixels)
    small = steps.shrink(picture(120, 100))
    torch.manual_seed(0)
    before = torch.default_generator.get_state()
    first = steps.augment(small, kind, transform.stream_of(0, 1, "a"))
    assert torch.equal(torch.default_generator.get_state(), before)
    torch.manual_seed(5)
    assert torch.equal(first, steps.augment(small, kind, transform.stream_of(0, 1, "a")))
    assert first.shape == (3, pixels, pixels) and first.dtype == torch.uint8
    streams = [transform.stream_of(*of) for of in ((1, 1, "a"), (0, 2, "a"), (0, 1, "b"))]
    others = [steps.augment(small, kind, stream) for stream in streams]
    assert all(torch.equal(first, other) for other in others) == (kind == "none")


def test_only_crop_flip_flips():
    steps = Transform.of_size(16)
    ramp = torch.arange(16, dtype=torch.uint8).repeat(3, 16, 1)  # grows to the right

    def falls(kind):
        outs = [steps.augment(ramp, kind, stream) for stream in range(20)]
        return sum(bool(out[0, 8, 4] > out[0, 8, 11]) for out in outs)

    assert falls("crop") == 0 and 0 < falls("crop_flip") < 20
