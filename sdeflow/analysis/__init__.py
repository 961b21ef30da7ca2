"""The place where solvers are compared: problems with a truth, work against precision."""

from sdeflow.analysis.problem import Problem
from sdeflow.analysis.work_precision import Run, WorkPrecision, environment, work_precision

__all__ = ["Problem", "Run", "WorkPrecision", "environment", "work_precision"]
