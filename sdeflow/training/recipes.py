"""Models from recipes: names and numbers, which JSON can say and nobody has to unpickle."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch.distributions import Distribution, Independent, Normal

from sdeflow.data import eight_gaussians
from sdeflow.errors import ArgumentError, choose, nearest
from sdeflow.models import (
    ActionMatching,
    BridgeMatching,
    ContinuousFlow,
    DenoisingScoreMatching,
    FlowMatching,
    GenerativeModel,
    RectifiedFlow,
    SchrodingerBridge,
    StochasticInterpolant,
)
from sdeflow.networks import MLP, UNet
from sdeflow.paths import (
    CosinePath,
    EDMPath,
    LinearPath,
    PairPath,
    SubVariancePreservingPath,
    VarianceExplodingPath,
    VariancePreservingPath,
)
from sdeflow.processes import (
    CosineVariancePreserving,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)

__all__ = ["KINDS", "PARTS", "build"]

Maker = Callable[..., Any]


def normal(event: tuple[int, ...], deviation: float = 1.0) -> Distribution:
    """N(0, deviation²) in each coordinate."""
    mean = torch.zeros(event)
    return Independent(Normal(mean, torch.full_like(mean, deviation)), len(event))


def ring(event: tuple[int, ...], radius: float = 2.0, sd: float = 0.2) -> Distribution:
    """Eight normal laws around a circle in the plane."""
    if event != (2,):
        raise ArgumentError(f"the base 'eight-gaussians' is a law of points in the plane, and an event is {event}.")
    return eight_gaussians(radius, sd)


PARTS: dict[str, dict[str, Maker]] = {
    "network": {"mlp": MLP, "unet": UNet},
    "base": {"normal": normal, "eight-gaussians": ring},
    "path": {
        "linear": LinearPath,
        "cosine": CosinePath,
        "vp": VariancePreservingPath,
        "sub-vp": SubVariancePreservingPath,
        "ve": VarianceExplodingPath,
        "edm": EDMPath,
        "pair": PairPath,
    },
    "process": {
        "vp": VariancePreserving,
        "sub-vp": SubVariancePreserving,
        "ve": VarianceExploding,
        "cosine": CosineVariancePreserving,
    },
}


class Kind(NamedTuple):
    """A kind of model: its class, what it takes besides networks, and what it calls those."""

    model: Callable[..., GenerativeModel]
    parts: tuple[str, ...] = ("base",)
    networks: tuple[str, ...] = ("net",)


KINDS: dict[str, Kind] = {
    "flow-matching": Kind(FlowMatching, ("path", "base")),
    "rectified-flow": Kind(RectifiedFlow),
    "score": Kind(DenoisingScoreMatching, ("process",)),
    "continuous-flow": Kind(ContinuousFlow),
    "action-matching": Kind(ActionMatching, networks=("action",)),
    "interpolant": Kind(StochasticInterpolant, networks=("net", "score_net")),
    "bridge-matching": Kind(BridgeMatching),
    "schrodinger-bridge": Kind(SchrodingerBridge, networks=("net", "score_net")),
}
DEFAULTS = {"network": "mlp", "base": "normal", "path": "linear", "process": "vp"}


def build(recipe: Mapping[str, Any], *, seed: int | None = None) -> GenerativeModel:
    """A model from its recipe, a dictionary that JSON can say.

    Arguments:
        recipe: ``"kind"`` and ``"event"``, the shape of one sample, and where they are not the usual ones ``"network"``,
            ``"base"``, and ``"path"`` or ``"process"``, each a name or a dictionary of a ``"name"`` and its numbers; and
            ``"options"`` of the model. ``"data"`` is not looked at. The names are the keys of ``KINDS`` and ``PARTS`` here.
        seed: Of the first weights; with it the global generators are neither read nor changed.

    Raises:
        ArgumentError: A name or an option is unknown.

    Example:
        >>> network = {"name": "mlp", "width": 32}
        >>> recipe = {
        ...     "kind": "score",
        ...     "event": [2],
        ...     "process": "ve",
        ...     "network": network,
        ...     "options": {"weighting": "edm"},
        ... }
        >>> sf.training.build(recipe, seed=0).sample(3, seed=0, solver={"steps": 5}).shape
        torch.Size([3, 2])
    """
    for name in ("kind", "event"):
        if name not in recipe:
            raise ArgumentError(f"the recipe has no {name!r}; it says: {', '.join(map(repr, recipe)) or 'nothing'}.")
    kind = KINDS[choose("kind", recipe["kind"], KINDS)]
    known = {"kind", "event", "network", "options", "data", *kind.parts}
    for name in recipe:
        if name not in known:
            raise ArgumentError(f"{name!r} is no part of a recipe for {recipe['kind']!r}. {nearest(name, known)}")
    event = tuple(int(size) for size in recipe["event"])
    with torch.random.fork_rng(devices=[]) if seed is not None else nullcontext():
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        parts: dict[str, Any] = {}
        for part in kind.parts:
            parts[part] = _component(part, recipe, event, parts)
        for name in kind.networks:
            parts[name] = _component("network", recipe, event, {"scalar": True} if name == "action" else {})
        if "process" in parts:  # a process has a prior for events of any shape
            parts["event_shape"] = event
        options = dict(recipe.get("options", {}))
        _check_options(recipe["kind"], kind.model, options)
        model = kind.model(**parts, **options)
    return model


def _component(part: str, recipe: Mapping[str, Any], event: tuple[int, ...], others: Mapping[str, Any]) -> Any:
    """A network, base, path or process by its name and numbers."""
    given = recipe.get(part)
    if given is None and part == "base" and hasattr(others.get("path"), "base"):
        return others["path"].base(event)  # that with which the path has a score
    numbers = {"name": given or DEFAULTS[part]} if given is None or isinstance(given, str) else dict(given)
    name = choose(part, numbers.pop("name", None), PARTS[part])
    maker = PARTS[part][name]
    _check_options(name, maker, numbers)
    if part == "network":
        return maker(event, **numbers, **others)
    return maker(event, **numbers) if part == "base" else maker(**numbers)


def _check_options(name: str, maker: Maker, options: Mapping[str, Any]) -> None:
    taken = inspect.signature(maker).parameters
    known = [word for word in taken if word not in ("self", "net", "action", "score_net", "base", "path", "process")]
    known = [word for word in known if word not in ("event", "event_shape", "shape", "scalar")]
    for option in options:
        if option not in known:
            raise ArgumentError(f"{option!r} is no option of {name!r}. {nearest(option, known)}")
