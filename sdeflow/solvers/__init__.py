"""How a process is stepped: solve(), the methods, and what they return."""

from sdeflow.solvers import time_grids
from sdeflow.solvers.events import Event, Occurrences
from sdeflow.solvers.methods import Method, Methods
from sdeflow.solvers.registry import methods
from sdeflow.solvers.solution import Solution
from sdeflow.solvers.solve import solve
from sdeflow.solvers.status import Status

__all__ = ["Event", "Method", "Methods", "Occurrences", "Solution", "Status", "methods", "solve", "time_grids"]
