"""How a method looks in every figure of a report: a colour for what it is, a marker for whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sdeflow.analysis.peers import PREFIX

__all__ = ["COLOURS", "MARKERS", "Look", "looks"]

# Each is at least 3 : 1 against the light and the dark page (WCAG 2.2, 1.4.11), and neighbours differ in hue and in lightness.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#c2689a", "#b8860b", "#8b5cf6",
    "#2e86c1", "#dc2626", "#558b2f", "#a6761d", "#0e7490", "#7f7f7f",
)  # fmt: skip
MARKERS = {
    "sdeflow": "circle",
    "torchsde": "square",
    "torchdiffeq": "diamond",
    "scipy": "triangle-up",
    "torchode": "triangle-down",
    "zuko": "pentagon",
    "flow_matching": "hexagon",
    "diffrax": "star",
}
# One method goes by several names: what a library calls it, and what it is.
SAME = {
    ("torchsde", "euler"): "euler-maruyama",
    ("torchsde", "milstein-grad-free"): "milstein-derivative-free",
    ("diffrax", "itomilstein"): "milstein",
    ("zuko", "dopri45"): "dopri5",
    ("scipy", "rk45"): "dopri5",
    ("scipy", "dop853"): "dopri8",
    ("scipy", "rk23"): "bosh3",
}


@dataclass(frozen=True)
class Look:
    """One method in all figures.

    Attributes:
        name: As in the runs, such as ``"peer:torchsde:srk"``.
        method: What it is, without whose: ``"srk"``.
        library: Whose it is.
        raw: Whether it was called as the library's own users call it, without sdeflow between.
        colour: By method.
        marker: By library; open where sdeflow calls the library.
        dash: Of the line: dotted for raw calls.
    """

    name: str
    method: str
    library: str
    raw: bool
    colour: str
    marker: str
    dash: str

    @property
    def source(self) -> str:
        """Whose it is, and how it was called."""
        if self.library == "sdeflow":
            return "sdeflow"
        return f"{self.library}, raw" if self.raw else f"{self.library}, in sdeflow"


def looks(names: Iterable[str], stochastic: Mapping[str, bool] | None = None) -> dict[str, Look]:
    """A look for each name, in the order in which they come; the same method has the same colour whoever wrote it.

    Arguments:
        names: Of methods, as in the runs.
        stochastic: Whether a method was run on SDEs, by name: diffrax calls Euler what others call Euler and Maruyama's.

    Example:
        >>> from sdeflow.analysis.report.appearance import looks
        >>> native, peer = looks(["dopri5", "peer:torchdiffeq:dopri5"]).values()
        >>> native.colour == peer.colour, native.marker == peer.marker
        (True, False)
    """
    colours: dict[str, str] = {}
    found: dict[str, Look] = {}
    for name in dict.fromkeys(names):
        raw = name.startswith(PREFIX)
        library, colon, method = name.removeprefix(PREFIX).rpartition(":")
        library = library if colon else "sdeflow"
        method = method.lower().replace("_", "-")
        method = SAME.get((library, method), method)
        if library == "diffrax" and method == "euler" and (stochastic or {}).get(name):
            method = "euler-maruyama"
        colour = colours.setdefault(method, COLOURS[len(colours) % len(COLOURS)])
        shape = MARKERS.get(library, "cross")
        marker = shape if raw or library == "sdeflow" else f"{shape}-open"
        found[name] = Look(name, method, library, raw, colour, marker, "dot" if raw else "solid")
    return found
