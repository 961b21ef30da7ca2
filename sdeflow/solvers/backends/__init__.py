"""The wrapped libraries: torchsde and torchdiffeq, behind sdeflow's checks and on its Brownian path."""

from sdeflow.solvers.backends.torchdiffeq import run as run_torchdiffeq
from sdeflow.solvers.backends.torchdiffeq import torchdiffeq_methods
from sdeflow.solvers.backends.torchsde import run as run_torchsde
from sdeflow.solvers.backends.torchsde import torchsde_methods

__all__ = ["run_torchdiffeq", "run_torchsde", "torchdiffeq_methods", "torchsde_methods"]
