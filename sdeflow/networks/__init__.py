"""Small reference networks, and adapters for those of other libraries."""

from sdeflow.networks.adapt import adapt
from sdeflow.networks.gradient import Gradient
from sdeflow.networks.mlp import MLP
from sdeflow.networks.unet import UNet

__all__ = ["MLP", "Gradient", "UNet", "adapt"]
