"""Training: from a model and data to a model that fits them, interrupted or not."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from sdeflow.brownian import fresh_seed
from sdeflow.errors import ArgumentError, choose
from sdeflow.extras import require
from sdeflow.training.batches import as_batches
from sdeflow.training.checkpoint import FILE, Checkpoint, read
from sdeflow.training.held_out import HeldOut
from sdeflow.training.interruption import Interruption
from sdeflow.training.loaders import generators_of
from sdeflow.training.loop import conclude, go
from sdeflow.training.modes import learning
from sdeflow.training.randomness import as_before, isolated
from sdeflow.training.run import Run
from sdeflow.training.settings import Settings, check_names, whole
from sdeflow.training.training import Training, arguments_of

__all__ = ["fit"]

# Fused: one call for all tensors, a quarter of the time of the others on small networks.
OPTIMISERS: dict[str, Callable[..., Optimizer]] = {
    "adam": partial(Adam, fused=True),
    "adamw": partial(AdamW, fused=True),
}


def fit(
    model: nn.Module,
    data: Any,
    steps: int,
    *,
    names: Sequence[str | None] | None = None,
    batch_size: int = 256,
    optimiser: str | Callable[..., Optimizer] = "adam",
    learning_rate: float = 1e-3,
    warmup: int = 0,
    schedule: str = "constant",
    clip: float | None = 1.0,
    ema: float = 0.999,
    precision: str = "full",
    seed: int | None = None,
    held_out: Any = None,
    evaluate_every: int = 500,
    patience: int | None = None,
    criterion: str = "log_prob",
    drop_labels: float | None = None,
    solver: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    save_every: int = 1000,
    resume: bool = False,
    recipe: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Run:
    r"""Train a model, on Lightning Fabric; afterwards the model has the averaged weights and is in evaluation mode.

    With a ``seed`` a run is a function of its arguments: of the order of the data, the noise, dropout. Step k draws from
    generators that are seeded with (seed, k), so a run that was interrupted and taken up again has the losses of one that was
    not, to the last bit on the same machine. The global generators, and those of a loader, are as before afterwards. The
    model is trained on the device on which it is, and data come to it there, their floating-point parts in its dtype. It is
    put in training mode; where it is in it already, parts that you put in evaluation mode stay as they are.

    Arguments:
        model: A module with ``loss(x, **condition)``: any of :mod:`sdeflow.models`, or your own.
        data: ``(n, *event)``, a tuple or dictionary of tensors with n rows each, an :class:`sf.data.LevelImages` (dequantised
            anew in each step), a law to draw from, or a data set or loader of ``torch.utils.data``.
        steps: How many steps, those of an interrupted run included.
        names: What the parts of a batch are, ``("x", "label")``: x, and keyword arguments of the loss; None for a part that
            is not used. By default the keys of a dictionary of tensors, else ``("x",)``.
        batch_size: Rows in a step; a loader has its own.
        optimiser: ``"adam"``, ``"adamw"``, or what is called with (parameters, lr=…), such as ``torch.optim.SGD``.
        learning_rate: Its rate, at the end of the warm-up.
        warmup: Steps over which the rate rises linearly.
        schedule: What it does then: ``"constant"``, ``"linear"`` or ``"cosine"`` (to 0 at the end).
        clip: The largest norm of the gradient of all parameters together; longer ones are shortened. None for no bound.
        ema: The decay of the average of the weights per step; 0 for none. In step k it is at most k/(9 + k).
        precision: ``"full"`` (that of the model), ``"bf16-mixed"`` or ``"16-mixed"``.
        seed: Of everything that is random; None draws one, ``run.seed``.
        held_out: Data to watch, of the same parts as ``data``. Two rows are evaluated before the first step, to be sure that
            they can be; the run is the same without.
        evaluate_every: Steps between two looks at them.
        patience: Looks without an improvement after which training stops, with the best weights. None: only look.
        criterion: ``"log_prob"`` of the averaged weights, or ``"loss"``, its negative, for models without a likelihood.
        drop_labels: The part of the rows whose ``label`` is −1, none, in a step: what
            :func:`~sdeflow.models.classifier_free` guidance is trained with. Held-out rows keep theirs.
        solver: Options of the flow for ``"log_prob"``: tolerances, ``divergence``, ….
        folder: Where checkpoints and a readable ``run.json`` go; None keeps nothing.
        save_every: Steps between two checkpoints; one is also written at the end, on Ctrl-C or SIGTERM, and after an error,
            which says so in a note.
        resume: Go on with the run in the folder if there is one. With a constant learning rate ``steps`` may be larger.
        recipe: What :func:`sdeflow.training.build` made the model from; with it ``sf.load(folder)`` needs no model.
        progress: Whether to show a bar with loss and rate.

    Raises:
        ArgumentError: An argument is wrong, the folder holds a run already, or its checkpoint is damaged or of another run.
        TrainingError: The loss was not finite; the model has the last good weights.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written; SIGTERM raises ``SystemExit(143)`` likewise.
        MissingExtraError: ``pip install "sdeflow[train]"``.

    Example:
        >>> model = sf.models.FlowMatching(sf.networks.MLP(2), sf.paths.LinearPath().base((2,)))
        >>> run = sf.fit(model, sf.data.moons(1000, seed=0), steps=20, seed=0, progress=False)
        >>> run.losses.shape, run.status
        (torch.Size([20]), 'finished')
    """
    began = time.perf_counter()
    environments = require("lightning_fabric.plugins.environments", extra="train", purpose="sf.fit")
    require("safetensors", extra="train", purpose="sf.fit")
    chosen = names is not None
    names = check_names(_names(data) if names is None else names)
    whole("save_every", save_every, 1)
    settings = Settings(
        steps=steps,
        names=names,
        batch_size=batch_size,
        optimiser=optimiser if isinstance(optimiser, str) else getattr(optimiser, "__qualname__", repr(optimiser)),
        learning_rate=float(learning_rate),
        warmup=warmup,
        schedule=schedule,
        clip=clip,
        average=ema,
        precision=precision,
        evaluate_every=evaluate_every,
        patience=patience,
        criterion=criterion,
        drop_labels=drop_labels,
    )
    if patience is not None and held_out is None:
        raise ArgumentError(f"patience={patience} needs data to watch: give held_out=….")
    parameters = _trainable(model)
    make = optimiser if callable(optimiser) else OPTIMISERS[choose("optimiser", optimiser, OPTIMISERS)]
    place = None if folder is None else Path(folder)
    stored = _stored(place, resume)
    seed = _seed(seed, stored)
    device = parameters[0].device
    watched = None
    if held_out is not None:
        arguments = arguments_of(model, names, device)
        watched = HeldOut(held_out, names, criterion, dict(solver or {}), batch_size, seed, arguments)
    fabric = require("lightning_fabric", extra="train", purpose="sf.fit").Fabric(
        accelerator=device.type,
        devices=1 if device.index is None or device.type == "cpu" else [device.index],
        precision="32-true" if precision == "full" else precision,  # the former does nothing, and suits float64 as well
        # One process, whatever the variables of a cluster's scheduler say.
        plugins=[environments.LightningEnvironment()],
    )
    generators = [*generators_of(data), *generators_of(held_out)]
    with isolated(device), as_before(generators), learning(model), Interruption() as interruption:
        training = Training(
            model,
            as_batches(data, batch_size, seed, names, chosen),
            settings,
            _of_one_loss(make(parameters, lr=settings.learning_rate)),
            fabric,
            seed,
            device,
            watched,
            recipe,
        )
        if stored is not None:
            training.restore(stored, str(place))
        training.try_look()
        go(training, interruption, place, save_every, progress)
        return conclude(training, interruption, place, time.perf_counter() - began)


def _of_one_loss(optimiser: Optimizer) -> Optimizer:
    """The optimiser, unless it wants to ask for the loss again within a step, as L-BFGS does."""
    closure = inspect.signature(type(optimiser).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ArgumentError(
            f"{type(optimiser).__name__} evaluates the loss several times in a step, and each step of sf.fit has one batch and "
            f"one loss; give an optimiser of gradients, such as torch.optim.SGD."
        )
    return optimiser


def _names(data: Any) -> tuple[str, ...]:
    return tuple(data) if isinstance(data, Mapping) else ("x",)


def _trainable(model: Any) -> list[nn.Parameter]:
    if not isinstance(model, nn.Module) or not callable(getattr(model, "loss", None)):
        raise ArgumentError(
            f"the model is {type(model).__name__}; give a module with a method loss(x, **condition), such as those of "
            f"sf.models."
        )
    found = [value for value in model.parameters() if value.requires_grad]
    if not found:
        raise ArgumentError("the model has no parameter that requires a gradient, so there is nothing to train.")
    return found


def _stored(folder: Path | None, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from."""
    if folder is None:
        if resume:
            raise ArgumentError("resume=True needs the folder of the run: give folder=….")
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"folder={str(folder)!r} cannot be made: {error.strerror}. Give another.") from None
    if not (folder / FILE).exists():
        return None
    if not resume:
        raise ArgumentError(f"{folder} holds a run already: pass resume=True to go on with it, or give another folder.")
    found = read(folder)
    if found.record["status"] == "diverged":
        raise ArgumentError(
            f"the run in {folder} diverged in step {found.record['step'] + 1}, and would again. Its weights are good: "
            f"sf.load({str(folder)!r}). Start anew with a lower learning_rate, in another folder."
        )
    return found


def _seed(seed: int | None, stored: Checkpoint | None) -> int:
    """The seed that was given, that of the run which goes on, or a new one."""
    if stored is None:
        return fresh_seed(seed)
    if seed not in (None, stored.record["seed"]):
        raise ArgumentError(f"seed={seed} was given, and the run has seed={stored.record['seed']}; leave it out.")
    return int(stored.record["seed"])
