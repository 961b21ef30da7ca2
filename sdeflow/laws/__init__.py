"""Distributions with closed forms along a process: what tests and demos measure against."""

from sdeflow.laws.along import Along
from sdeflow.laws.gaussian_mixture import GaussianMixture
from sdeflow.laws.kernel_density import kernel_density

__all__ = ["Along", "GaussianMixture", "kernel_density"]
