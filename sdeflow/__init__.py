"""sdeflow: solve SDEs, their reversals and their probability flows; compute likelihoods; compare solvers.

A process says what moves, a method says how it is stepped, a path of noise says what drives it, and a generative model is
a plug-in that supplies the learned part of a process.
"""

from importlib import import_module
from types import ModuleType

from sdeflow import analysis, calculus, laws, models, networks, paths, processes, training
from sdeflow.brownian import BrownianPath
from sdeflow.errors import ArgumentError, MethodError, SdeflowError, SdeflowWarning, SolveError, TrainingError
from sdeflow.likelihood import Flow, LogProb, bits_per_dim
from sdeflow.networks import adapt
from sdeflow.processes import (
    ODE,
    SDE,
    Process,
    continuity_residual,
    fokker_planck_residual,
    nelson_score,
)
from sdeflow.solvers import Event, Method, Solution, Status, methods, solve
from sdeflow.training import fit, load

__all__ = [
    "ODE",
    "SDE",
    "ArgumentError",
    "BrownianPath",
    "Event",
    "Flow",
    "LogProb",
    "Method",
    "MethodError",
    "Process",
    "SdeflowError",
    "SdeflowWarning",
    "Solution",
    "SolveError",
    "Status",
    "TrainingError",
    "adapt",
    "analysis",
    "bits_per_dim",
    "calculus",
    "continuity_residual",
    "fit",
    "fokker_planck_residual",
    "laws",
    "load",
    "methods",
    "models",
    "nelson_score",
    "networks",
    "paths",
    "processes",
    "solve",
    "training",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Pictures and packaged data need extras, so they are imported when they are first asked for."""
    if name in ("data", "plotting"):
        return import_module(f"sdeflow.{name}")
    raise AttributeError(f"module 'sdeflow' has no attribute {name!r}")
