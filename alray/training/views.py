"""Views: the random crops, turns and colours of a picture that self-supervision says are the same thing.

All pictures of a step are changed at once, on whatever device they are on. Each number that is drawn is a function of
(seed, epoch, view, id) and all arithmetic is by element, so a picture's view has the same bits on any worker and beside
any other pictures. The steps are SimSiam's (Chen & He, CVPR 2021, appendices A and D) with three liberties: colours
change in one fixed order and are clipped once; hue is a turn of the chroma plane (YIQ) and not of a hexagon (HSV); and
a crop that does not fit is narrowed to the picture instead of being drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from alray import seeds
from alray.config import Config
from alray.models.transform import SMALL
from alray.seeds import Hashes

RATIO = 4 / 3
"""A crop is at most this much wider than high, or higher than wide, before it is made a square."""

JITTER, HUE, JITTERED, GREY = 0.4, 0.1, 0.8, 0.2
"""Changes of brightness, contrast and saturation; of hue, in turns; shares of pictures that change, or become grey."""

BLURRED, SIGMA = 0.5, (0.1, 2.0)
"""Share of large pictures that are blurred, and the Gaussian's width in pixels at 224."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""

YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


class ViewConfig(Config):
    """What may change in a picture without changing what it shows."""

    crop_scale: float = Field(0.2, gt=0, le=1)  # smallest share of the area that a view keeps; the largest is all
    flip: bool = True  # left and right; not for digits, or any text
    color: bool = True  # brightness, contrast, saturation, hue, grey; large pictures are blurred too
    rotate: float = Field(0.0, ge=0, le=180)  # degrees, at most, either way


class Draws:
    """Uniform numbers for the rows of one step: fp32 [N] each, named by what they are for."""

    def __init__(self, hashes: Hashes, device: torch.device, *, seed: int, epoch: int, view: int) -> None:
        self._hashes, self._device, self._name = hashes, device, (seed, "view", epoch, view)

    def __call__(self, purpose: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return one number between `low` and `high` for each row."""
        drawn_N = low + (high - low) * seeds.uniform(seeds.key(*self._name, purpose), self._hashes)
        return torch.from_numpy(drawn_N.astype(np.float32)).to(self._device)

    def take(self, index: Sequence[int]) -> Draws:
        """Return the draws of some of the rows."""
        other = Draws.__new__(Draws)
        other._hashes, other._device, other._name = self._hashes[list(index)], self._device, self._name
        return other


def make(pictures: Sequence[Tensor], draws: Draws, config: ViewConfig, size: int, device: torch.device) -> Tensor:
    """Return a view of each picture, fp32 in 0…1, [N, 3, size, size]; pictures are uint8 [3, h, w] of any sizes."""
    out = torch.empty(len(pictures), 3, size, size, device=device)
    for index in _alike(pictures):
        stacked = torch.stack([pictures[i] for i in index]).to(device, non_blocking=True)
        out[index] = crops(stacked, draws.take(index), config, size)
    if not config.color:
        return out
    coloured = colours(out, draws)
    return blurs(coloured, draws) if size > SMALL else coloured


def _alike(pictures: Sequence[Tensor]) -> list[list[int]]:
    groups: dict[torch.Size, list[int]] = {}
    for i, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(i)
    return list(groups.values())


def crops(pixels: Tensor, draws: Draws, config: ViewConfig, size: int) -> Tensor:
    """Return a random part of each picture, uint8 [N, 3, h, w], as a square fp32 [N, 3, size, size]."""
    height, width = pixels.shape[-2:]
    side = torch.sqrt(draws("area", config.crop_scale) * (height * width))
    ratio = torch.exp(draws("ratio", -0.5, 0.5) * math.log(RATIO))  # √(width / height)
    half_w, half_h = (side * ratio).clamp(max=width) / 2, (side / ratio).clamp(max=height) / 2
    centre_x = half_w + draws("x") * (width - 2 * half_w)
    centre_y = half_h + draws("y") * (height - 2 * half_h)
    turn = draws("turn", -1, 1) * math.radians(config.rotate)
    sign = torch.where(draws("flip") < 0.5, -1.0, 1.0) if config.flip else torch.ones_like(turn)
    at = (torch.arange(size, device=pixels.device) + 0.5) * (2 / size) - 1  # centres of the pixels made, in −1…1
    u_N1S, v_NS1 = (half_w * sign)[:, None, None] * at, half_h[:, None, None] * at[:, None]
    cos, sin = torch.cos(turn)[:, None, None], torch.sin(turn)[:, None, None]
    x_NSS = centre_x[:, None, None] + cos * u_N1S - sin * v_NS1
    y_NSS = centre_y[:, None, None] + sin * u_N1S + cos * v_NS1
    grid = torch.stack([x_NSS * (2 / width) - 1, y_NSS * (2 / height) - 1], dim=-1)
    return F.grid_sample(pixels.float() / 255, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colours(pixels: Tensor, draws: Draws) -> Tensor:
    """Return pictures of 0…1, [N, 3, S, S], with other colours: one linear map and one shift of each."""
    luma = torch.tensor(LUMA, device=pixels.device)
    changed = draws("jitter") < JITTERED
    bright, contrast, saturation = (
        torch.where(changed, draws(name, 1 - JITTER, 1 + JITTER), 1.0) for name in ("bright", "contrast", "saturation")
    )
    saturation = torch.where(draws("grey") < GREY, 0.0, saturation)
    hue = torch.where(changed, draws("hue", -HUE, HUE), 0.0)
    mean_N = bright * (pixels * luma[:, None, None]).sum(1).mean((1, 2))
    map_N33 = _saturated(saturation, _turned(hue), luma) * (bright * contrast)[:, None, None]
    out = ((1 - contrast) * mean_N)[:, None, None, None].expand_as(pixels)  # grey: neither saturation nor hue moves it
    for channel in range(3):
        out = out + map_N33[:, :, channel, None, None] * pixels[:, channel, None]
    return out.clamp(0, 1)


def _turned(hue_N: Tensor) -> Tensor:
    """Return the maps of red, green and blue, [N, 3, 3], that turn the hue and keep the grey."""
    grey, chroma, quarter = (part.to(hue_N.device) for part in _planes())
    angle = 2 * math.pi * hue_N[:, None, None]
    turned: Tensor = grey + torch.cos(angle) * chroma + torch.sin(angle) * quarter
    return turned


def _planes() -> list[Tensor]:
    """Return three maps of colours: their grey alone, their chroma alone, and that turned by 90 degrees."""
    to = torch.tensor(YIQ, dtype=torch.float64)
    grey, chroma, quarter = torch.zeros(3, 3, 3, dtype=torch.float64)
    grey[0, 0] = chroma[1, 1] = chroma[2, 2] = quarter[2, 1] = 1
    quarter[1, 2] = -1
    return [(torch.linalg.inv(to) @ part @ to).float() for part in (grey, chroma, quarter)]


def _saturated(saturation_N: Tensor, map_N33: Tensor, luma: Tensor) -> Tensor:
    """Return the maps followed by a mix of each colour with the grey of the picture."""
    kept = saturation_N[:, None, None]
    return kept * map_N33 + (1 - kept) * luma.expand(3, 3)


def blurs(pixels: Tensor, draws: Draws) -> Tensor:
    """Return pictures [N, 3, S, S] of which some are blurred by a Gaussian, whose width grows with the size S."""
    scale = pixels.shape[-1] / 224
    reach = math.ceil(2 * SIGMA[1] * scale)
    sigma_N = (draws("sigma", *SIGMA) * scale)[:, None]
    weight_NK = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pixels.device) / sigma_N).square())
    weight_NK = weight_NK / weight_NK.sum(1, keepdim=True)
    none_K = F.one_hot(torch.tensor(reach, device=pixels.device), 2 * reach + 1).float()
    weight_NK = torch.where((draws("blur") < BLURRED)[:, None], weight_NK, none_K)
    for dim in (2, 3):
        pads = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
        parts = F.pad(pixels, pads, mode="reflect").unfold(dim, 2 * reach + 1, 1)
        pixels = torch.zeros_like(pixels)
        for k in range(2 * reach + 1):
            pixels += parts[..., k] * weight_NK[:, k, None, None, None]
    return pixels
