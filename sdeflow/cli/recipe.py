"""The recipe of ``sdeflow train``: from words of the command line to a dictionary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdeflow.errors import SdeflowError
from sdeflow.training.own import is_place
from sdeflow.training.recipes import PARTS

__all__ = ["network_of", "recipe_of"]

# A perceptron of this size takes half a minute for points in the plane, and is sharp there; its own default is a fast one.
SIZES: dict[str, dict[str, Any]] = {"mlp": {"width": 128, "depth": 4}, "unet": {}}


def recipe_of(
    kind: str,
    event: Sequence[int],
    parts: Mapping[str, Any],
    options: Iterable[str],
) -> dict[str, Any]:
    """A recipe from the parts that have options of their own, None where not given, and the words of ``--option``.

    A word is ``name=value``. A name with a dot is a number of a part, ``process.sigma=0.5``; the name of a part is that
    part, ``coupling=optimal-transport``; any other is an option of the model. A value is what it is as JSON, else a word.

    Raises:
        SdeflowError: A word has no such form, or says something again.

    Example:
        >>> from sdeflow.cli.recipe import recipe_of
        >>> recipe_of("learned-reversal", [2], {"process": "gbm", "base": None}, ["process.sigma=0.5", "steps=50"])
        {'kind': 'learned-reversal', 'event': [2], 'process': {'name': 'gbm', 'sigma': 0.5}, 'options': {'steps': 50}}
    """
    recipe: dict[str, Any] = {"kind": kind, "event": list(event)}
    recipe |= {part: value for part, value in parts.items() if value is not None}
    of_model: dict[str, Any] = {}
    for word in options:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise SdeflowError(f"--option {word}: write NAME=VALUE, such as coupling=optimal-transport.")
        part, dot, number = name.replace("-", "_").partition(".")
        if dot and part not in PARTS:
            raise SdeflowError(f"--option {word}: {part!r} is no part of a model; there are: {', '.join(PARTS)}.")
        if dot:
            given = recipe.get(part, {})
            recipe[part] = {**({"name": given} if isinstance(given, str) else given), number: _value(text)}
        elif part not in PARTS:
            of_model[part] = _value(text)
        elif isinstance(recipe.get(part), str) or "name" in recipe.get(part, {}):
            raise SdeflowError(f"--option {word}: the {part} is given twice.")
        else:
            recipe[part] = {"name": text, **recipe[part]} if part in recipe else text
    return {**recipe, "options": of_model}


def network_of(name: str | None, event: Sequence[int], width: int | None, depth: int | None) -> dict[str, Any]:
    """A network by name and size, a U-Net for images by default; one of your own has the sizes that are given."""
    name = name or ("unet" if _is_image(event) else "mlp")
    sizes = {"width": width, "levels" if name == "unet" else "depth": depth}
    usual = {} if is_place(name) else SIZES.get(name, {})
    return {"name": name, **usual, **{key: value for key, value in sizes.items() if value is not None}}


def _value(text: str) -> Any:
    """A number, true, false, a list, … where it reads as one, else a word."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _is_image(event: Sequence[int]) -> bool:
    return len(event) in (2, 3) and min(event[-2:]) > 1 and all(side % 2 == 0 for side in event[-2:])
