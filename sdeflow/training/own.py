"""What a user's own module holds, as ``my_module:my_sde``."""

from __future__ import annotations

import importlib
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdeflow.errors import ArgumentError

__all__ = ["is_place", "object_at", "version_of"]


def is_place(name: object) -> bool:
    """Whether a name has the form MODULE:NAME."""
    return isinstance(name, str) and ":" in name


def object_at(place: str) -> Any:
    """What ``my_module:my_sde`` names; the current folder is searched first.

    Raises:
        ArgumentError: There is no such module, or nothing of that name in it.

    Example:
        >>> from sdeflow.training.own import object_at
        >>> object_at("sdeflow:SDE") is sf.SDE
        True
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise ArgumentError(f"{place}: write MODULE:NAME, such as my_module:my_sde for my_sde in my_module.py.")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ArgumentError(f"{place}: there is no module {module!r} here or among the installed ones.") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ArgumentError(f"{place}: {module} has no {part!r}.")
        found = getattr(found, part)
    return found


def version_of(place: str) -> str:
    """The first digits of the SHA-256 of the file in which it is; of the module's own file, not of what that imports."""
    object_at(place)
    file = getattr(sys.modules[place.partition(":")[0]], "__file__", None)
    return sha256(Path(file).read_bytes()).hexdigest()[:12] if file else "none"
