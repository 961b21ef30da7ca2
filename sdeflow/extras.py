"""Optional dependencies: imported when they are asked for, and missed in a sentence that says what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sdeflow.errors import SdeflowError

__all__ = ["MissingExtraError", "require"]


class MissingExtraError(SdeflowError, ImportError):
    """A package that an extra of sdeflow brings along is not installed."""


def require(module: str, *, extra: str, purpose: str) -> Any:
    """The module, imported; it belongs to what ``pip install sdeflow[extra]`` installs.

    Arguments:
        module: The name to import, such as ``"matplotlib.figure"``.
        extra: The extra of sdeflow that brings it.
        purpose: What needs it, the subject of the sentence.

    Raises:
        MissingExtraError: It is not installed. (An error *inside* an installed package is passed on as it is.)

    Example:
        >>> require("nowhere.submodule", extra="demo", purpose="the demo")
        Traceback (most recent call last):
        ...
        sdeflow.extras.MissingExtraError: the demo needs nowhere, which is not installed: pip install "sdeflow[demo]"
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise MissingExtraError(
            f'{purpose} needs {package}, which is not installed: pip install "sdeflow[{extra}]"'
        ) from None
