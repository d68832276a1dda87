"""Heads and backbones: what turns pictures into features and features into class scores."""

from alray.models import torchvision_shim
from alray.models.head import Head

torchvision_shim.install()  # before anything can import torchvision; imports nothing itself

__all__ = ["Head"]
