"""Models from recipes: names and numbers, which JSON can say and nobody has to unpickle."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError, SdeflowWarning, choose, nearest
from sdeflow.models import GenerativeModel
from sdeflow.training.kinds import KINDS, NO_KINDS, Kind
from sdeflow.training.own import is_place, version_of
from sdeflow.training.parts import PARTS, check_options, component

__all__ = ["KINDS", "PARTS", "build", "check_same_recipe", "completed", "own_places"]

DEFAULTS = {"network": "mlp", "base": "normal"}


def build(recipe: Mapping[str, Any], *, seed: int | None = None) -> GenerativeModel:
    """A model from its recipe, a dictionary that JSON can say.

    Arguments:
        recipe: ``"kind"`` and ``"event"``, the shape of one sample; where they are not the usual ones ``"network"``,
            ``"base"``, ``"path"``, ``"process"``, ``"time"`` and ``"coupling"``, as the model takes them, each a name or a
            dictionary of a ``"name"`` and its numbers; and ``"options"`` of the model. ``"data"`` is not looked at. The names
            are the keys of ``KINDS`` and ``PARTS`` here, or a part of your own as ``"my_module:my_sde"``: an object, or a
            function of its numbers (for networks and bases of the event's shape first). That module is then imported, here
            and when the model is loaded.
        seed: Of the first weights; with it the global generators are neither read nor changed.

    Raises:
        ArgumentError: A name or an option is unknown, or a part is missing.

    Example:
        >>> network = {"name": "mlp", "width": 32}
        >>> recipe = {
        ...     "kind": "score",
        ...     "event": [2],
        ...     "process": {"name": "ve", "sigma_max": 20.0},
        ...     "network": network,
        ...     "options": {"weighting": "edm"},
        ... }
        >>> sf.training.build(recipe, seed=0).sample(3, seed=0, solver={"steps": 5}).shape
        torch.Size([3, 2])
    """
    kind = _kind(recipe)
    taken = inspect.signature(kind.model).parameters
    _check_names(recipe, taken)
    check_versions(recipe)
    event = tuple(int(size) for size in recipe["event"])
    with torch.random.fork_rng(devices=[]) if seed is not None else nullcontext():
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        parts: dict[str, Any] = {}
        for part in (part for part in PARTS if part in taken):
            given = _with_name(recipe.get(part), kind.process if part == "process" else DEFAULTS.get(part))
            if part == "base" and part not in recipe and hasattr(parts.get("path"), "base"):
                parts[part] = parts["path"].base(event)  # that with which the path has a score
            elif part in recipe or taken[part].default is inspect.Parameter.empty:
                if given is None:
                    raise ArgumentError(
                        f"{recipe['kind']!r} is made for a {part}, and none is given: name one of "
                        f"{', '.join(map(repr, PARTS[part]))}, or your own as MODULE:NAME."
                    )
                parts[part] = component(part, given, event)
        network = _with_name(recipe.get("network"), DEFAULTS["network"])
        for name, options in kind.networks.items():
            parts[name] = component("network", network, event, **options)
        if "event_shape" in taken:
            parts["event_shape"] = event
        options = dict(recipe.get("options", {}))
        check_options(recipe["kind"], kind.model, options)
        return kind.model(**parts, **options)


def completed(recipe: Mapping[str, Any], x: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """A recipe with the numbers filled in that depend on the data, and with the versions of your own modules.

    Arguments:
        recipe: As :func:`build` takes it. ``"data"`` may have ``"shift"`` and ``"scale"``, by which the model sees
            (x − shift)/scale; the process of ``"learned-reversal"`` is said in the units of x.
        x: Data ``(n, *event)``.
        seed: Of paths that are simulated: the base of ``"learned-reversal"`` has the moments of their ends.

    Raises:
        ArgumentError: As :func:`build`.

    Example:
        >>> recipe = {"kind": "learned-reversal", "event": [1], "process": {"name": "ou", "theta": 9.0}}
        >>> recipe = sf.training.completed(recipe, 5 + torch.rand(1000, 1), seed=0)
        >>> abs(recipe["base"]["deviation"][0] - (1 / 18) ** 0.5) < 0.02  # the stationary law
        True
    """
    whole = _kind(recipe).from_data(dict(recipe), x, seed)
    versions = {place: version_of(place) for place in own_places(whole)}
    return {**whole, "code": versions} if versions else whole


def own_places(recipe: Mapping[str, Any]) -> list[str]:
    """The parts of a recipe that are a user's own, as MODULE:NAME."""
    named = [part.get("name") if isinstance(part, Mapping) else part for part in map(recipe.get, PARTS)]
    return [str(name) for name in named if is_place(name)]


def check_versions(recipe: Mapping[str, Any]) -> None:
    """Warn of modules that are not as they were: a comment more is harmless, and another drift is another model."""
    for place, version in recipe.get("code", {}).items():
        if version_of(place) != version:
            warnings.warn(
                f"the file of {place} has changed since the model was trained: what it makes may be another model.",
                SdeflowWarning,
                stacklevel=3,
            )


def check_same_recipe(old: Mapping[str, Any], new: Mapping[str, Any], source: str) -> None:
    """Refuse to take up a run of another recipe; where its data are is no part of it.

    Raises:
        ArgumentError: Something differs.
    """
    new = json.loads(json.dumps(new))  # as a file has it
    for name in {**old, **new}:
        if name != "data" and old.get(name) != new.get(name):
            raise ArgumentError(
                f"the run in {source} was made with {name}={old.get(name)!r}, and now {name}={new.get(name)!r} is given: it "
                f"would not be the same run. Give what it was made with, or another folder."
            )


def _kind(recipe: Mapping[str, Any]) -> Kind:
    for name in ("kind", "event"):
        if name not in recipe:
            raise ArgumentError(f"the recipe has no {name!r}; it says: {', '.join(map(repr, recipe)) or 'nothing'}.")
    if recipe["kind"] in NO_KINDS:
        raise ArgumentError(f"kind={recipe['kind']!r}: {NO_KINDS[recipe['kind']]}")
    return KINDS[choose("kind", recipe["kind"], KINDS)]


def _check_names(recipe: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    known = {"kind", "event", "network", "options", "data", "code", *(part for part in PARTS if part in taken)}
    for name in recipe:
        if name not in known:
            raise ArgumentError(f"{name!r} is no part of a recipe for {recipe['kind']!r}. {nearest(name, known)}")


def _with_name(given: Any, default: str | None) -> Any:
    """Numbers alone are those of the usual one."""
    if isinstance(given, Mapping) and "name" not in given and default is not None:
        return {"name": default, **given}
    return default if given is None else given
