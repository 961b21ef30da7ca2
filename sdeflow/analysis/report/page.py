"""The page of a report: one HTML file with the figures, the tables, and all they need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from sdeflow.analysis.order import Order
from sdeflow.analysis.report.appearance import Look, looks
from sdeflow.analysis.report.figures import WORK, order_figure, work_precision_figure
from sdeflow.analysis.report.footer import footer
from sdeflow.analysis.report.tables import order_table, run_table
from sdeflow.analysis.results import WorkPrecision
from sdeflow.errors import ArgumentError
from sdeflow.extras import require

__all__ = ["report"]

GLYPHS = {
    "circle": "●",
    "square": "■",
    "square-open": "□",
    "diamond": "◆",
    "diamond-open": "◇",
    "triangle-up": "▲",
    "triangle-down": "▼",
    "pentagon": "⬟",
    "hexagon": "⬢",
    "star": "★",
}
DECADES = tuple(10.0**-k for k in range(1, 13))


def report(
    results: Sequence[WorkPrecision] = (),
    orders: Sequence[Order] = (),
    *,
    at: float = 1e-2,
    title: str = "Work against precision",
    path: str | Path | None = None,
) -> str:
    """One HTML page that needs nothing else, no network either: what was compared, with what result, on which machine.

    At its top a sentence for each problem names the best method at an accuracy, which the reader can change. Beneath, for each
    problem, error against work and error against step size, to point at, to zoom, and to filter by method, noise and
    library; the table of all runs, failures included; the orders that were measured, beside what is claimed; versions and
    hardware; how to cite. A method has one colour in all figures, a library one marker. The page follows the reader's light
    or dark scheme. Needs the extra ``report``.

    Arguments:
        results: Comparisons, one for each problem.
        orders: Measured orders, of these problems or of others.
        at: The accuracy at which the best are named first.
        title: Of the page.
        path: Where to write it, if anywhere.

    Returns:
        The page, about 5 MB, most of it Plotly's code.

    Raises:
        ArgumentError: There is nothing to report, two comparisons are of one problem, or the accuracy is not positive.

    Example:
        >>> run = sf.analysis.Run("rk4", "dt", 0.1, 1e-6, 0.0, 40, 0, 1e-3, 1e-5)
        >>> page = sf.analysis.report([sf.analysis.WorkPrecision("decay", [run])], at=1e-3)
        >>> "At an error of 0.001 on decay, rk4 is best: 1 ms" in page
        True
    """
    problems = list(dict.fromkeys([*(r.problem for r in results), *(o.problem for o in orders)]))
    if not problems:
        raise ArgumentError("there is nothing to report: give results of work_precision, or measured orders.")
    if len({r.problem for r in results}) < len(results):
        raise ArgumentError("two of the results are of one problem; give one for each, or write two reports.")
    plotly = require("plotly.offline", extra="report", purpose="the report").get_plotlyjs()
    noise = _noises(results, orders)
    runs = [run.method for result in results for run in result.runs]
    stochastic = {run.method: noise[r.problem] != "none" for r in results for run in r.runs}
    look = looks([*runs, *(order.method for order in orders)], stochastic)
    best = {f"{a:g}": [str(result.best(at=a)) for result in results] for a in _accuracies(results, at)}
    figures: dict[str, Any] = {}
    sections = [
        _section(
            problem,
            noise[problem],
            next((r for r in results if r.problem == problem), None),
            [o for o in orders if o.problem == problem],
            look,
            figures,
        )
        for problem in problems
    ]
    data = {
        "looks": {name: {"method": a.method, "source": a.source} for name, a in look.items()},
        "work": WORK,
        "best": best,
        "figures": figures,
    }
    parts = {name: files(__package__).joinpath(name).read_text() for name in ("page.html", "page.css", "page.js")}
    environment = results[0].environment if results else {}
    page = Template(parts["page.html"]).substitute(
        title=escape(title),
        style=parts["page.css"],
        where=_where(environment),
        summary=_summary(best, at),
        filters=_filters(look, list(dict.fromkeys(noise.values())), any(r.seconds for x in results for r in x.runs)),
        sections="\n".join(sections),
        footer=footer(results, list(look.values())),
        data=json.dumps(data, ensure_ascii=False).replace("</", "<\\/"),
        plotly=plotly,
        script=parts["page.js"],
    )
    if path is not None:
        Path(path).write_text(page, encoding="utf-8")
    return page


def _noises(results: Sequence[WorkPrecision], orders: Sequence[Order]) -> dict[str, str]:
    """The class of noise of each problem."""
    said = {result.problem: str(result.settings.get("noise", "not recorded")) for result in results}
    return {**{order.problem: order.noise for order in orders}, **said}


def _accuracies(results: Sequence[WorkPrecision], at: float) -> list[float]:
    """Those to choose from: the one that was asked for, and the powers of ten that tell some methods from others."""
    errors = [run.error for result in results for run in result.runs if run.error and not run.message]
    between = [a for a in DECADES if errors and min(errors) <= a <= max(errors)]
    return sorted({at, *between}, reverse=True)


def _where(environment: Mapping[str, Any]) -> str:
    if not environment:
        return f"{date.today():%d %B %Y}"
    threads = environment.get("threads")
    return escape(
        f"{date.today():%d %B %Y}, sdeflow {environment.get('sdeflow')}, torch {environment.get('torch')}; "
        f"{environment.get('processor') or environment.get('machine')}, {threads} thread{'' if threads == 1 else 's'}"
    )


def _summary(best: Mapping[str, Sequence[str]], at: float) -> str:
    if not any(best.values()):
        return ""
    options = "".join(f'<option value="{a}"{" selected" if a == f"{at:g}" else ""}>{a}</option>' for a in best)
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in best[f"{at:g}"])
    return (
        '<section class="summary" aria-label="Summary"><h2><label for="at">Best at an error of</label> '
        f'<select id="at" name="at">{options}</select></h2><ul>{items}</ul></section>'
    )


def _filters(look: Mapping[str, Look], noises: Sequence[str], timed: bool) -> str:
    """The form: what to have on the axis of work, and which methods, libraries and classes of noise to show."""
    methods = {a.method: f'<span class="swatch" style="background:{a.colour}"></span>' for a in look.values()}
    sources = {
        a.source: f'<span class="glyph" aria-hidden="true">{GLYPHS.get(a.marker, "✚")}</span>' for a in look.values()
    }
    work = ""
    if timed:
        radios = "".join(
            f'<label><input type="radio" name="work" value="{value}"{checked}>{word}</label>'
            for value, word, checked in (("evaluations", "evaluations", " checked"), ("milliseconds", "time", ""))
        )
        work = f"<fieldset><legend>Work</legend>{radios}</fieldset>"
    return work + "".join(
        _boxes(legend, name, values)
        for legend, name, values in (
            ("Method", "method", methods),
            ("Library", "source", sources),
            ("Noise", "noise", dict.fromkeys(noises, "")),
        )
    )


def _boxes(legend: str, name: str, values: Mapping[str, str]) -> str:
    both = "".join(
        f'<button type="button" data-set="{s}" aria-label="{legend}: {s}">{s}</button>' for s in ("all", "none")
    )
    rows = "".join(
        f'<label><input type="checkbox" name="{name}" value="{escape(value)}" checked>{mark}'
        f"<span>{escape(value)}</span></label>"
        for value, mark in values.items()
    )
    return f'<fieldset><legend>{legend}</legend><span class="both">{both}</span>{rows}</fieldset>'


def _section(
    problem: str,
    noise: str,
    result: WorkPrecision | None,
    orders: Sequence[Order],
    look: Mapping[str, Look],
    figures: dict[str, Any],
) -> str:
    """One problem: its figures, which are added to those of the page, and its tables."""
    drawn = []
    name = f"{len(figures)}"
    for kind, caption, figure in (
        ("work", "Error against work", work_precision_figure(result, look) if result else None),
        ("order", "Error against step size", order_figure(orders, look)),
    ):
        if figure is None:
            continue
        key = f"{kind}-{name}"
        figures[key] = json.loads(figure.to_json())
        drawn.append(_figure(key, kind, caption, problem))
    tables = (run_table(result, noise) if result else "") + (order_table(orders) if orders else "")
    about = [f"noise: {noise}"] if noise != "none" else ["an ODE"]
    if result and noise != "none" and "paths" in result.settings:
        about.append(f"{result.settings['paths']} paths, seed {result.settings.get('seed')}")
    if result and result.settings.get("source"):
        about.append(str(result.settings["source"]))
    return (
        f'<article data-noise="{escape(noise)}"><header><h2>{escape(problem)}</h2>'
        f'<p class="quiet">{escape("; ".join(about))}</p></header><div class="figures">{"".join(drawn)}</div>{tables}</article>'
    )


def _figure(key: str, kind: str, caption: str, problem: str) -> str:
    buttons = "".join(
        f'<button type="button" data-zoom="{factor}" aria-label="{word}: {caption}, {escape(problem)}">{sign}</button>'
        for factor, word, sign in (
            ("0.7", "zoom in", "+"),
            ("1.43", "zoom out", "−"),
            ("reset", "whole figure", "reset"),
        )
    )
    return (
        f'<figure><figcaption><h3>{caption}</h3><span class="zoom">{buttons}</span></figcaption>'
        f'<div class="plot" id="{key}" data-kind="{kind}" data-work="evaluations" role="img" '
        f'aria-label="{caption}, {escape(problem)}; the table beneath has the numbers"></div></figure>'
    )
