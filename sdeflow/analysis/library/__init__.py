"""Reference problems: each a process and where it starts, what is right at its end, and its source."""

from sdeflow.analysis.library.table import Problems, problems

__all__ = ["Problems", "problems"]
