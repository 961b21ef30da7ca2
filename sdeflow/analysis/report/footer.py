"""The end of a report: on what it was measured, how to measure it again, and whom to cite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.metadata import metadata, version

from sdeflow.analysis.report.appearance import Look
from sdeflow.analysis.results import WorkPrecision
from sdeflow.solvers import methods as registry

__all__ = ["footer"]

SETTINGS = ("seed", "repeats", "dtype")


def footer(results: Sequence[WorkPrecision], looks: Sequence[Look]) -> str:
    """Environment, settings and references."""
    return _environment(results) + _citations(looks)


def _environment(results: Sequence[WorkPrecision]) -> str:
    """Each figure once; where the results differ, all there are."""
    entries: dict[str, list[str]] = {}
    for result in results:
        settings = {name: result.settings[name] for name in SETTINGS if name in result.settings}
        for name, value in {**result.environment, **settings}.items():
            if value not in ("", None) and str(value) not in entries.setdefault(name, []):
                entries[name].append(str(value))
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(', '.join(values))}</dd>" for name, values in entries.items())
    return (
        f"<section><h2>Environment</h2><dl>{rows}</dl>"
        "<p>Times are medians of whole solves on a path of their own, on the threads above. Errors are at the end of the "
        "interval, root mean square over samples and coordinates, all methods on one Brownian path; bars are two standard "
        "errors. In the tables ± is one standard error of the error before it, f and g are evaluations of drift and diffusion, "
        "and ± ms is half the interquartile range.</p></section>"
        if rows
        else ""
    )


def _citations(looks: Sequence[Look]) -> str:
    """The software, then the paper of each method that has one."""
    about = metadata("sdeflow")
    entry = "\n".join(
        [
            "@software{sdeflow,",
            f"  author = {{{{{about['Author']}}}}},",
            f"  title = {{{{sdeflow}}: {about['Summary']}}},",
            f"  version = {{{version('sdeflow')}}}",
            "}",
        ]
    )
    table, papers = registry(), dict[str, dict[str, None]]()
    for look in looks:
        name = look.name.removeprefix("peer:")
        if name in table and table[name].paper:
            papers.setdefault(table[name].paper, {})[name] = None
    items = "".join(f"<li>{escape(', '.join(names))}: {_linked(paper)}</li>" for paper, names in papers.items())
    return (
        "<section><h2>How to cite</h2><p>The software, and the papers of the methods that you use.</p>"
        f"<pre>{escape(entry)}</pre>{f'<ul>{items}</ul>' if items else ''}</section>"
    )


def _linked(paper: str) -> str:
    """A title, year and link, the link made one."""
    return re.sub(r"https?://[^\s,;]+", lambda found: f'<a href="{found[0]}">{found[0]}</a>', escape(paper))
