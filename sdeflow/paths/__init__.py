"""Conditional probability paths from a base to the data, and couplings of the two."""

from sdeflow.paths.change import change_schedule
from sdeflow.paths.couplings import Coupling, Entropic, Given, Independent, OptimalTransport, as_coupling
from sdeflow.paths.discrete import DiscreteSchedule
from sdeflow.paths.draws import Draws, Purpose
from sdeflow.paths.elucidated import EDMSchedule, KarrasSchedule
from sdeflow.paths.gaussian import GaussianPath
from sdeflow.paths.interpolants import Interpolant
from sdeflow.paths.pairs import BridgePath, PairPath
from sdeflow.paths.scheduled import (
    CosinePath,
    EDMPath,
    LinearPath,
    SchedulePath,
    SubVariancePreservingPath,
    VarianceExplodingPath,
    VariancePreservingPath,
)
from sdeflow.paths.window import Window

__all__ = [
    "BridgePath",
    "CosinePath",
    "Coupling",
    "DiscreteSchedule",
    "Draws",
    "EDMPath",
    "EDMSchedule",
    "Entropic",
    "GaussianPath",
    "Given",
    "Independent",
    "Interpolant",
    "KarrasSchedule",
    "LinearPath",
    "OptimalTransport",
    "PairPath",
    "Purpose",
    "SchedulePath",
    "SubVariancePreservingPath",
    "VarianceExplodingPath",
    "VariancePreservingPath",
    "Window",
    "as_coupling",
    "change_schedule",
]
