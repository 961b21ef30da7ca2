"""The place where solvers are compared: problems with a truth, orders, stability, work against precision, metrics."""

from sdeflow.analysis import metrics
from sdeflow.analysis.environment import environment
from sdeflow.analysis.fit import OrderFit, fit_order
from sdeflow.analysis.library import Problems, problems
from sdeflow.analysis.order import Order, order
from sdeflow.analysis.problem import Moment, Problem
from sdeflow.analysis.report import report
from sdeflow.analysis.results import Best, Change, WorkPrecision, compare
from sdeflow.analysis.run import Run
from sdeflow.analysis.stability import Stability, amplification, stability
from sdeflow.analysis.work_precision import work_precision

__all__ = [
    "Best",
    "Change",
    "Moment",
    "Order",
    "OrderFit",
    "Problem",
    "Problems",
    "Run",
    "Stability",
    "WorkPrecision",
    "amplification",
    "compare",
    "environment",
    "fit_order",
    "metrics",
    "order",
    "problems",
    "report",
    "stability",
    "work_precision",
]
