"""Toy laws and real data that come inside packages, so that nothing is downloaded."""

from sdeflow.data.digits import digits
from sdeflow.data.levels import LevelImages
from sdeflow.data.mnist import mnist_5k
from sdeflow.data.terrain import terrain
from sdeflow.data.toy import checkerboard, eight_gaussians, moons, s_curve

__all__ = ["LevelImages", "checkerboard", "digits", "eight_gaussians", "mnist_5k", "moons", "s_curve", "terrain"]
