"""A comparison as one HTML page: figures to point at, zoom and filter, the tables beneath, environment and citations."""

from sdeflow.analysis.report.page import report

__all__ = ["report"]
