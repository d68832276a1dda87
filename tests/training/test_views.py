"""Views: the same for a row wherever it is made, and each step what its words say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray import seeds
from alray.training import views
from alray.training.views import Draws, ViewConfig

CPU = torch.device("cpu")
STILL = ViewConfig(crop_scale=1.0, flip=False, color=False)


def draws(ids: list[str], *, seed: int = 0, epoch: int = 0, view: int = 0) -> Draws:
    return Draws(seeds.hash_ids(ids), CPU, seed=seed, epoch=epoch, view=view)


def pictures(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [16, 80])  # the second is blurred too
def test_a_view_is_the_same_bits_beside_any_other_pictures(size: int) -> None:
    ids, pixels, config = [f"row-{i}" for i in range(23)], pictures(23), ViewConfig(rotate=20)
    whole = views.make(list(pixels), draws(ids), config, size, CPU)
    for part in ([7], [22, 7, 3], list(range(7, 20))):
        alone = views.make([pixels[i] for i in part], draws([ids[i] for i in part]), config, size, CPU)
        assert torch.equal(alone, whole[part])


def test_a_view_is_another_one_for_another_id_epoch_view_or_seed() -> None:
    one, config = pictures(1)[0], ViewConfig()
    keys = [dict(seed=1), dict(epoch=1), dict(view=1), {}]
    made = [views.make([one], draws(["a"], **key), config, 16, CPU) for key in keys]
    made.append(views.make([one], draws(["b"]), config, 16, CPU))
    for i, first in enumerate(made):
        assert torch.equal(first, made[i]) and not any(torch.equal(first, other) for other in made[i + 1 :])


def test_pictures_of_several_shapes_keep_their_places() -> None:
    wide, square = pictures(1, 24)[0][:, :12], pictures(1, 12)[0]
    ids, config = ["a", "b", "c"], ViewConfig()
    made = views.make([wide, square, wide], draws(ids), config, 8, CPU)
    for i, picture in enumerate((wide, square, wide)):
        assert torch.equal(made[i], views.make([picture], draws([ids[i]]), config, 8, CPU)[0])


def test_nothing_changes_when_nothing_may(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = pictures(4)
    monkeypatch.setattr(views, "RATIO", 1.0)
    made = views.make(list(pixels), draws(list("abcd")), STILL, 16, CPU)
    assert torch.allclose(made, pixels / 255, atol=1e-5)


def test_a_flip_and_a_turn_are_the_ones_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "RATIO", 1.0)
    pixels = pictures(40)
    ids = [f"row-{i}" for i in range(40)]
    made = views.make(list(pixels), draws(ids), STILL.model_copy(update={"flip": True}), 16, CPU)
    flipped = (draws(ids)("flip") < 0.5).tolist()
    expected = torch.stack([p.flip(2) if f else p for p, f in zip(pixels, flipped, strict=True)]) / 255
    assert torch.allclose(made, expected, atol=1e-5) and 10 < sum(flipped) < 30
    monkeypatch.setattr(Draws, "__call__", lambda self, name, *_: torch.ones(40))  # the largest turn
    turned = views.crops(pixels, draws(ids), STILL.model_copy(update={"rotate": 90.0}), 16)
    assert torch.allclose(turned, torch.rot90(pixels, 1, (2, 3)) / 255, atol=1e-4)


def test_a_crop_keeps_a_share_of_the_area_and_stays_inside() -> None:
    """Of a picture whose red is x and whose green is y, a crop's corners say where it was cut."""
    size, ids = 256, [f"row-{i}" for i in range(2000)]
    ramp = torch.arange(size, dtype=torch.uint8)
    picture = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    config = ViewConfig(crop_scale=0.25, flip=False, color=False)
    made = views.crops(picture.to(torch.uint8).expand(2000, 3, size, size), draws(ids), config, 9) * 255 / size
    wide = (made[:, 0, 0, -1] - made[:, 0, 0, 0]) * 9 / 8
    high = (made[:, 1, -1, 0] - made[:, 1, 0, 0]) * 9 / 8
    share = (wide * high).numpy()
    assert share.min() > 0.24 and share.max() <= 1.001
    fits = (wide < 0.99) & (high < 0.99)
    assert np.mean(share[fits]) == pytest.approx(0.58, abs=0.03)  # even from ¼ to 1, less those narrowed near 1
    assert (wide / high).min() > 0.74 and (wide / high).max() < 1.34
    left = made[:, 0, 0, 0][fits]
    assert left.min() >= 0 and 0.1 < left.mean() < 0.3


def test_colours_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    pixel = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    said = {"jitter": 0.0, "grey": 1.0, "bright": 0.9, "contrast": 1.2, "saturation": 0.7, "hue": 0.0}
    monkeypatch.setattr(Draws, "__call__", lambda self, name, *_: torch.tensor([said[name]]))
    luma = torch.tensor(views.LUMA)[:, None, None]

    def grey(x: torch.Tensor) -> torch.Tensor:
        return (x * luma).sum(1, keepdim=True)

    bright = pixel * 0.9
    contrasted = 1.2 * bright + (1 - 1.2) * grey(bright).mean()
    saturated = 0.7 * contrasted + 0.3 * grey(contrasted)
    assert torch.allclose(views.colours(pixel, draws(["a"])), saturated, atol=1e-6)
    said["hue"] = 0.07
    turned = views.colours(pixel, draws(["a"]))
    assert torch.allclose(grey(turned), grey(saturated), atol=1e-5) and not torch.allclose(turned, saturated, atol=1e-2)
    said |= {"jitter": 0.9, "grey": 0.0}  # not jittered, but grey
    assert torch.allclose(views.colours(pixel, draws(["a"])), grey(pixel).expand(1, 3, 4, 4), atol=1e-6)


def test_a_blur_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms.v2 import functional as steps

    pixels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    said = {"sigma": torch.tensor([1.0, 1.5]), "blur": torch.tensor([0.1, 0.9])}
    monkeypatch.setattr(Draws, "__call__", lambda self, name, *_: said[name])
    made = views.blurs(pixels, draws(["a", "b"]))
    assert torch.equal(made[1], pixels[1])
    sigma = 1.0 * 96 / 224
    assert torch.allclose(made[0], steps.gaussian_blur(pixels[0], [5, 5], [sigma, sigma]), atol=1e-5)
