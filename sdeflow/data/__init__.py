"""Toy laws and real data that come inside packages, so that nothing is downloaded."""

from sdeflow.data.digits import digits
from sdeflow.data.levels import LevelImages
from sdeflow.data.toy import checkerboard, eight_gaussians, moons, s_curve

__all__ = ["LevelImages", "checkerboard", "digits", "eight_gaussians", "moons", "s_curve"]
