"""The kinds of models that a recipe can name, and what each takes from the data before it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.models import (
    ActionMatching,
    BridgeMatching,
    ContinuousFlow,
    DenoisingScoreMatching,
    FlowMatching,
    GenerativeModel,
    LearnedReversal,
    Preconditioned,
    RectifiedFlow,
    SchrodingerBridge,
    ScoreMatching,
    StochasticInterpolant,
)
from sdeflow.models.times import LogNormal, TimeLaw
from sdeflow.processes import SDE
from sdeflow.solvers import solve
from sdeflow.training.parts import FITS, component
from sdeflow.training.rescaled import Rescaled, rescaled_law

__all__ = ["KINDS", "NO_KINDS", "Kind"]

Recipe = dict[str, Any]
EXACT = 16  # dimensions up to which a divergence is exact where nothing is said
ENDS = 4000  # paths whose ends a base is fitted to


def elucidated(
    net: Any,
    process: SDE,
    event_shape: tuple[int, ...],
    *,
    data_deviation: float = 0.5,
    time: TimeLaw | None = None,
    base: Distribution | None = None,
) -> GenerativeModel:
    """A score model whose network is preconditioned, with the weights and the noise levels that go with it.

    The levels have the law ln σ ~ N(ln 2σ_d − 1.2, 1.2²), that of the paper where σ_d = ½.
    """
    denoiser = Preconditioned(net, process.schedule, data_deviation)  # type: ignore[arg-type] # refused below if None
    return DenoisingScoreMatching(
        denoiser,
        process,
        event_shape,
        predicts="data",
        weighting=denoiser.weighting,
        time=LogNormal(math.log(2 * data_deviation) - 1.2) if time is None else time,
        base=base,
    )


def reversal(
    net: Any, process: SDE, base: Distribution, *, steps: int = 100, shift: Any = 0.0, scale: Any = 1.0
) -> GenerativeModel:
    """The reversal of a process that moves data in their own units, learned in those of z = (x − shift)/scale."""
    inward = Rescaled(process, shift, scale) if isinstance(process, SDE) and process.direction > 0 else process
    return LearnedReversal(net, inward, rescaled_law(base, shift, scale), steps=steps)


def still(
    net: Any,
    base: Distribution,
    *,
    method: str | None = None,
    slices: str = "rademacher",
    length: float = 10.0,
) -> GenerativeModel:
    """A score model without noise; by slices above 16 dimensions, where each exact divergence takes a product a dimension."""
    chosen = ("implicit" if base.event_shape.numel() <= EXACT else "sliced") if method is None else method
    return ScoreMatching(net, base, method=chosen, slices=slices, time=length)


def deviation_of_the_data(recipe: Recipe, x: Tensor, seed: int) -> Recipe:
    """σ_d, of all coordinates together, in the units in which the model sees the data."""
    shift, scale = units(recipe)
    return {**recipe, "options": {"data_deviation": float(((x - shift) / scale).std()), **recipe.get("options", {})}}


def end_of_the_process(recipe: Recipe, x: Tensor, seed: int) -> Recipe:
    """The units of the data, and the base with the moments of the points to which the process takes them."""
    shift, scale = units(recipe)
    options = {"shift": shift.tolist(), "scale": scale.tolist(), **recipe.get("options", {})}
    recipe = {**recipe, "options": options}
    base = recipe.get("base", "normal")
    name = base if isinstance(base, str) else base.get("name")
    if "process" not in recipe or name not in FITS or (not isinstance(base, str) and len(base) > 1):
        return recipe  # what is missing is refused when the model is made, and a law that was given is kept
    process = component("process", recipe["process"], tuple(x.shape[1:]))
    if not isinstance(process, SDE) or process.direction < 0:
        return recipe
    ends = solve(process.to_ito(), x[:ENDS], steps=options.get("steps", 100), seed=seed, method="euler-maruyama").final
    return {**recipe, "base": {"name": name, **FITS[name](ends)}}


def units(recipe: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Shift and scale of the data, where the recipe says them."""
    data = recipe.get("data", {})
    return torch.tensor(data.get("shift", 0.0)), torch.tensor(data.get("scale", 1.0))


class Kind(NamedTuple):
    """A kind of model.

    Attributes:
        model: What makes it, of networks, parts (see ``PARTS``) and options, each by the name of its argument.
        process: The name of its process where none is given.
        networks: What it calls its networks, and options of each.
        from_data: What fills in the numbers of a recipe that depend on the data.
        noisy: How its SDE is solved where nothing is said: in steps, unless the length of one depends on the data.
    """

    model: Callable[..., GenerativeModel]
    process: str | None = None
    networks: Mapping[str, Mapping[str, Any]] = {"net": {}}
    from_data: Callable[[Recipe, Tensor, int], Recipe] = lambda recipe, x, seed: recipe
    noisy: Mapping[str, Any] = {"steps": 200}


TWO: dict[str, dict[str, Any]] = {"net": {}, "score_net": {}}
KINDS: dict[str, Kind] = {
    "flow-matching": Kind(FlowMatching),
    "rectified-flow": Kind(RectifiedFlow),
    "score": Kind(DenoisingScoreMatching, process="vp"),
    "edm": Kind(elucidated, process="edm", from_data=deviation_of_the_data),
    "continuous-flow": Kind(ContinuousFlow),
    "action-matching": Kind(ActionMatching, networks={"action": {"scalar": True}}),
    "interpolant": Kind(StochasticInterpolant, networks=TWO),
    "bridge-matching": Kind(BridgeMatching),
    "schrodinger-bridge": Kind(SchrodingerBridge, networks=TWO),
    "score-matching": Kind(still, noisy={"rtol": 0.1, "atol": 0.1}),
    "learned-reversal": Kind(reversal, from_data=end_of_the_process),
}

DOOB = (
    "a Doob transform is no model of rows: it bends a process towards what happens at its end, which a likelihood of the "
    "end says, and no data. In Python there is sf.models.DoobTransform; for a process between a base and your rows take "
    "'bridge-matching' or 'schrodinger-bridge'."
)
NO_KINDS = {"doob": DOOB, "doob-transform": DOOB}
"""Models of the library that cannot be made from data, and why."""
