"""How far samples are from a law, or from other samples: each figure with its standard error or a p-value."""

from sdeflow.analysis.metrics.gaussian import gaussian_kl, kl_to_gaussian
from sdeflow.analysis.metrics.kernels import energy_distance, mmd
from sdeflow.analysis.metrics.likelihood import negative_log_likelihood
from sdeflow.analysis.metrics.measured import Measured
from sdeflow.analysis.metrics.paths import path_energy, straightness
from sdeflow.analysis.metrics.transport import sliced_wasserstein, wasserstein

__all__ = [
    "Measured",
    "energy_distance",
    "gaussian_kl",
    "kl_to_gaussian",
    "mmd",
    "negative_log_likelihood",
    "path_energy",
    "sliced_wasserstein",
    "straightness",
    "wasserstein",
]
