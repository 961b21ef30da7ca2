"""A trained model from its folder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sdeflow.errors import ArgumentError, choose
from sdeflow.training.checkpoint import read
from sdeflow.training.recipes import build, own_places
from sdeflow.training.state import load_weights

__all__ = ["load"]


def load(
    folder: str | Path, model: nn.Module | None = None, *, which: str = "average", own_code: bool = False
) -> nn.Module:
    """The model of a run of :func:`sdeflow.fit`, with its weights, in evaluation mode; nothing is unpickled.

    Arguments:
        folder: Of the run, or its ``checkpoint.safetensors``.
        model: One like that which was trained, whose weights are overwritten. None where the run has a recipe.
        own_code: Whether parts of the recipe may be looked up in modules of your own, MODULE:NAME. These are imported and
            called, whatever they are, so say so only for a folder that you trust.
        which: ``"average"`` of the weights over the steps (the best ones if training watched for them), or the ``"last"``.

    Raises:
        ArgumentError: There is no checkpoint, it is damaged or of another model, a model is needed, or it has code of your own.

    Example:
        >>> model = sf.models.FlowMatching(sf.networks.MLP(2), sf.paths.LinearPath().base((2,)))
        >>> folder = getfixture("tmp_path")
        >>> run = sf.fit(model, sf.data.moons(100, seed=0), steps=3, folder=folder, progress=False)
        >>> other = sf.models.FlowMatching(sf.networks.MLP(2), sf.paths.LinearPath().base((2,)))
        >>> same = sf.load(folder, other)
        >>> torch.equal(same.net.last.weight, model.net.last.weight)
        True
    """
    choose("which", which, ("average", "last"))
    checkpoint = read(folder)
    if model is None:
        if checkpoint.record["recipe"] is None:
            raise ArgumentError(
                f"{folder} holds the weights of a {checkpoint.record['model']} and no recipe for it: make one as it was made "
                f"then, and give it: sf.load(folder, model)."
            )
        if (places := own_places(checkpoint.record["recipe"])) and not own_code:
            raise ArgumentError(
                f"{folder} was made with {', '.join(places)}, which loading would import and call. If you trust who made it, "
                f"allow it: sf.load(folder, own_code=True), or --own-code on the command line."
            )
        model = build(checkpoint.record["recipe"])
    values = checkpoint.part("model")
    if which == "average":
        values |= checkpoint.part("best") or checkpoint.part("average")
    load_weights(model, values, str(folder))
    return model.eval()
