"""A backbone with dropout layers and batch norm, by the name `dropout_backbone:make`: importable on workers."""

from __future__ import annotations

import torch
from torch import nn


def make(seed: int) -> nn.Module:
    """Return a convolution, its batch norm, dropout of channels, an average, and dropout of its 16 features."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        convolution = nn.Conv2d(3, 16, 3, stride=2)
    channels, units = nn.Dropout2d(0.25), nn.Dropout(0.5)
    return nn.Sequential(
        convolution, nn.BatchNorm2d(16), nn.ReLU(), channels, nn.AdaptiveAvgPool2d(1), nn.Flatten(), units
    )
