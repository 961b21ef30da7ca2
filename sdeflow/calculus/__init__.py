"""Derivatives on batches: divergences, and what a state-dependent noise adds to a drift."""

from sdeflow.calculus.derivatives import (
    along_itself,
    diagonal,
    divergence,
    elementwise,
    gradient,
    hutchinson,
    jacobian,
    leaves,
)
from sdeflow.calculus.finite import all_finite
from sdeflow.calculus.inference import outside_inference_mode
from sdeflow.calculus.noise import NOISES, apply_covariance, apply_diffusion, covariance, noise_terms

__all__ = [
    "NOISES",
    "all_finite",
    "along_itself",
    "apply_covariance",
    "apply_diffusion",
    "covariance",
    "diagonal",
    "divergence",
    "elementwise",
    "gradient",
    "hutchinson",
    "jacobian",
    "leaves",
    "noise_terms",
    "outside_inference_mode",
]
