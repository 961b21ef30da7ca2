"""The tables of a report: every run, and every order that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from sdeflow.analysis.order import Order
from sdeflow.analysis.results import WorkPrecision

__all__ = ["order_table", "run_table"]

HEADS = {
    "±": "standard error",
    "f": "drift evaluations",
    "g": "diffusion evaluations",
    "± ms": "half the interquartile range, ms",
}


def run_table(result: WorkPrecision, noise: str) -> str:
    """The rows of :meth:`WorkPrecision.rows`; one that failed says why."""
    rows = result.rows()
    if not rows:
        return ""
    body = []
    for run, row in zip(result.runs, rows, strict=True):
        if run.message:
            cells = f"{_cell(run.method)}{_cell(row['steps'], run.value)}" + (
                f'<td class="words" colspan="{len(row) - 2}">{escape(row["error"])}</td>'
            )
        else:
            values = {"steps": run.value, "error": run.error}
            cells = "".join(_cell(text, values.get(key)) for key, text in row.items())
        body.append(_row(run.method, cells))
    return _table("runs", f"Runs on {result.problem}", list(rows[0]), body)


def order_table(orders: Sequence[Order]) -> str:
    """Slope, interval and claim of each."""
    body = []
    for order in orders:
        first, stop = order.fit.used
        low, high = order.interval
        remark = "not yet asymptotic: smaller steps are needed" if order.fit.bent else ""
        cells = [
            _cell(order.method),
            _cell(order.kind),
            _cell(f"{order.slope:.2f}", order.slope),
            _cell(f"{low:.2f} to {high:.2f}", low),
            _cell("" if order.claim is None else f"{order.claim:g}", order.claim),
            _cell(f"{stop - first} of {len(order.fit.dts)}", stop - first),
            f'<td class="words">{remark}</td>',
        ]
        body.append(_row(order.method, "".join(cells)))
    level = f"{100 * orders[0].fit.level:g} % interval"
    heads = ["method", "error", "order", level, "claim", "step sizes", "remark"]
    return _table("orders", f"Measured orders on {orders[0].problem}", heads, body)


def _row(name: str, cells: str) -> str:
    return f'<tr data-name="{escape(name)}">{cells}</tr>'


def _cell(text: str, value: Any = None) -> str:
    sort = "" if value is None else f' data-value="{value:.6e}"'
    return f"<td{sort}>{escape(text)}</td>"


def _table(kind: str, caption: str, heads: Sequence[str], body: Sequence[str]) -> str:
    def head(text: str) -> str:
        hint = f' title="{HEADS[text]}"' if text in HEADS else ""
        words = ' class="words"' if text == "remark" else ""
        return f'<th scope="col"{words}><button type="button" class="sort"{hint}>{escape(text)}</button></th>'

    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{''.join(map(head, heads))}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
