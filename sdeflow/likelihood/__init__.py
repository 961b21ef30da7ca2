"""Likelihoods: densities of flows, with error bars."""

from sdeflow.likelihood.bits import bits_per_dim
from sdeflow.likelihood.flow import Flow, LogProb

__all__ = ["Flow", "LogProb", "bits_per_dim"]
