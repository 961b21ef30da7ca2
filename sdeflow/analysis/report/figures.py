"""The figures of a report, as Plotly figures: error against work, and error against step size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdeflow.analysis.order import Order
from sdeflow.analysis.report.appearance import Look
from sdeflow.analysis.results import WorkPrecision
from sdeflow.analysis.run import Run
from sdeflow.extras import require

__all__ = ["WORK", "order_figure", "work_precision_figure"]

WORK = {"evaluations": "evaluations of drift and diffusion", "milliseconds": "wall time of a solve (ms)"}
ERROR = "root-mean-square error at the end"
MOST_TICKS = 6
SEEN = 100.0  # an error is shown where it is at most so many times the largest of the fits: what blew up would squeeze the rest


def work_precision_figure(result: WorkPrecision, looks: Mapping[str, Look]) -> Any:
    """Error against evaluations and, where they were taken, against times; lower left is better. None without any error.

    A trace for each method, in the order of the work; ``meta`` says whose it is and holds the work by its name, for the page to
    switch between.
    """
    go = require("plotly.graph_objects", extra="report", purpose="the report")
    figure = go.Figure()
    for name in dict.fromkeys(run.method for run in result.runs):
        runs = sorted((run for run in result.curve(name) if run.error), key=lambda run: run.evaluations)
        if not runs:
            continue
        work: dict[str, list[float | None]] = {"evaluations": [run.evaluations or None for run in runs]}
        if any(run.seconds for run in runs):
            work["milliseconds"] = [1e3 * run.seconds if run.seconds else None for run in runs]
        errors = [run.error or 0.0 for run in runs]
        figure.add_scatter(
            x=work["evaluations"],
            y=errors,
            name=name,
            meta={"method": name, "work": work},
            customdata=[[_steps(run), _figures(run)] for run in runs],
            hovertemplate="<b>%{fullData.name}</b>, %{customdata[0]}<br>error %{y:.3g}%{customdata[1]}<extra></extra>",
            error_y=_bars(errors, [2 * (run.spread or 0.0) for run in runs], looks[name]),
            **_style(looks[name], "lines+markers"),
        )
    if not figure.data:
        return None
    return _laid_out(figure, WORK["evaluations"], ERROR)


def order_figure(orders: Sequence[Order], looks: Mapping[str, Look]) -> Any:
    """Errors at each step size with the fitted slopes; points that are not part of a fit are open. None without orders."""
    go = require("plotly.graph_objects", extra="report", purpose="the report")
    figure = go.Figure()
    label = (
        "<b>%{fullData.name}</b>, step %{x:.3g}<br>error %{y:.3g}<br>%{customdata[0]}%{customdata[1]}<extra></extra>"
    )
    tops = [abs(order.fit.errors[order.fit.used[0]]) for order in orders]
    for order in orders:
        look, fit = looks[order.method], order.fit
        first, stop = fit.used
        at = [k for k in range(len(fit.dts)) if 0 < abs(fit.errors[k]) <= SEEN * max(tops)]
        low, high = order.interval
        said = f"order {order.slope:.2f} ({low:.2f} to {high:.2f})" + (
            "" if order.claim is None else f", claim {order.claim:g}"
        )
        errors = [abs(fit.errors[k]) for k in at]
        solid = look.marker.removesuffix("-open")
        figure.add_scatter(
            x=[fit.dts[k] for k in at],
            y=errors,
            name=order.method,
            meta={"method": order.method},
            customdata=[[said, "" if first <= k < stop else "<br>not part of the fit"] for k in at],
            hovertemplate=label,
            error_y=_bars(errors, [2 * fit.stderr[k] for k in at], look),
            **_style(look, "markers", [solid if first <= k < stop else f"{solid}-open" for k in at]),
        )
        middle = (first + stop - 1) // 2
        ends = (first, stop - 1)
        figure.add_scatter(
            x=[fit.dts[k] for k in ends],
            y=[abs(fit.errors[middle]) * (fit.dts[k] / fit.dts[middle]) ** order.slope for k in ends],
            name=order.method,
            meta={"method": order.method},
            hoverinfo="skip",
            **_style(look, "lines"),
        )
    if not figure.data:
        return None
    kinds = sorted({order.kind for order in orders} - {"ode"})
    sizes = sorted({dt for order in orders for dt in order.fit.dts})
    told = sizes[:: -(-len(sizes) // MOST_TICKS)]
    _laid_out(figure, "step size (in units of time)", f"{' and '.join(kinds)} error".strip())
    return figure.update_xaxes(tickvals=told, ticktext=[f"{dt:.3g}" for dt in told])


def _steps(run: Run) -> str:
    return f"{run.rule} {run.value:.3g}"


def _figures(run: Run) -> str:
    """What a run cost, for the label that is seen on pointing at it."""
    spread = f" ± {2 * run.spread:.1g}" if run.spread else ""
    counts = (
        ""
        if run.nfe_drift is None
        else f"<br>{run.nfe_drift} f, {run.nfe_diffusion or 0} g (evaluations of drift, diffusion)"
    )
    if run.seconds is None:
        return f"{spread}{counts}"
    return f"{spread}{counts}<br>{1e3 * run.seconds:.3g} ms (interquartile range {1e3 * (run.interquartile or 0.0):.2g} ms)"


def _bars(errors: Sequence[float], spreads: Sequence[float], look: Look) -> dict[str, Any]:
    """Two standard errors either way; downwards no further than a logarithmic axis can show."""
    return {
        "type": "data",
        "symmetric": False,
        "array": list(spreads),
        "arrayminus": [min(spread, 0.9 * error) for error, spread in zip(errors, spreads, strict=True)],
        "visible": any(spreads),
        "thickness": 1,
        "width": 2,
        "color": look.colour,
    }


def _style(look: Look, mode: str, symbols: Sequence[str] | None = None) -> dict[str, Any]:
    return {
        "mode": mode,
        "line": {"color": look.colour, "width": 1.6, "dash": look.dash},
        "marker": {
            "color": look.colour,
            "size": 8,
            "symbol": list(symbols) if symbols else look.marker,
            "line": {"width": 1.4, "color": look.colour},
        },
    }


def _laid_out(figure: Any, x: str, y: str) -> Any:
    axis = {"type": "log", "showline": True, "ticks": "outside", "ticklen": 4, "exponentformat": "power"}
    figure.update_layout(
        template="none",
        xaxis={**axis, "title": {"text": x}},
        yaxis={**axis, "title": {"text": y}, "dtick": 1},
        showlegend=False,
        hovermode="closest",
        dragmode="zoom",
        margin={"l": 66, "r": 14, "t": 14, "b": 52},
        height=380,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure
