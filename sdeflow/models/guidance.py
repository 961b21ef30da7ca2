r"""Guidance: a model bent towards a condition, by a classifier or by itself.

Score, velocity, data and noise are affine in one another at a given point, so a weighted difference of what the network
predicts is that of all four, whatever it predicts, and an addition to the score is one to each.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdeflow.errors import ArgumentError
from sdeflow.models.model import CUT, GenerativeModel
from sdeflow.paths import Draws, Purpose
from sdeflow.processes.boundary import as_time
from sdeflow.processes.parameters import finite_number
from sdeflow.processes.schedule import Schedule
from sdeflow.types import Field, Time

__all__ = ["classifier_free", "drop_conditions", "guided"]

Model = TypeVar("Model", bound=GenerativeModel)

NETWORKS = ("net", "score_net")  # what models call those that are given their conditions


class Blend(nn.Module):
    """(1 − w) net(∅) + w net(condition), one call each."""

    def __init__(self, net: Any, scale: float, null: dict[str, Any]) -> None:
        super().__init__()
        self.net, self.scale, self.null = net, scale, null

    def forward(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        without: Tensor = self.net(t, x, **{**condition, **self.null})
        with_it: Tensor = self.net(t, x, **condition)
        return without + self.scale * (with_it - without)


# What an addition to the score is in each quantity, as a multiple of it. That to the velocity, (ȧ/a)s² − sṡ, is the −g²/2 of
# the probability flow, which is finite where s is 0 and ṡ infinite.
SHARES: dict[str, Callable[[Schedule, Tensor], Tensor]] = {
    "score": lambda schedule, t: torch.ones_like(t),
    "noise": lambda schedule, t: -schedule.s(t),
    "data": lambda schedule, t: schedule.variance(t) / schedule.a(t),
    "velocity": lambda schedule, t: -0.5 * schedule.squared_diffusion(t),
    "v": lambda schedule, t: -schedule.s(t) * (schedule.a(t) + schedule.variance(t) / schedule.a(t)),
}


class Pulled(nn.Module):
    """The network plus what an addition to the score is in its own quantity."""

    def __init__(self, model: GenerativeModel, grad_log_likelihood: Field, scale: float) -> None:
        super().__init__()
        self.net, self.pull, self.scale = model.net, grad_log_likelihood, scale
        self.schedule, self.predicts = model.schedule, model.predicts

    def forward(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        assert self.schedule is not None
        share = SHARES[self.predicts](self.schedule, as_time(t, x))
        value: Tensor = self.net(t, x, **condition)
        return value + (self.scale * share).to(x.dtype) * self.pull(t, x)


def classifier_free(model: Model, scale: float, null: dict[str, Any]) -> Model:
    """A copy of the model, sharing its parameters, whose every field is f(∅) + w (f(condition) − f(∅)).

    A model of two networks, as an interpolant's velocity and score, has both of them bent.

    Arguments:
        model: Trained with and without its conditions; see :func:`drop_conditions`.
        scale: w: 1 is the model itself, 0 the unconditional one; above 1 is what guidance is for.
        null: The conditions that stand for none, such as ``{"label": torch.tensor(-1)}`` of ``sf.networks.MLP``.

    Raises:
        ArgumentError: The scale is not a number, or null is empty.

    References:
        Classifier-Free Diffusion Guidance (Ho & Salimans, 2022), https://arxiv.org/abs/2207.12598

    Example:
        >>> model = sf.models.FlowMatching(sf.networks.MLP(2, classes=3), sf.paths.LinearPath().base((2,)))
        >>> sharp = sf.models.classifier_free(model, 2.0, {"label": torch.tensor(-1)})
        >>> sharp.sample(5, seed=0, label=torch.tensor([0, 1, 2, 0, 1]), solver={"steps": 5}).shape
        torch.Size([5, 2])
    """
    if not isinstance(null, dict) or not null:
        raise ArgumentError(f"null={null!r}: give the conditions that stand for none, such as {{'label': -1}}.")
    scale = finite_number("scale", scale)
    both = {name: net for name in NETWORKS if (net := getattr(model, name, None)) is not None}
    return _with_nets(model, **{name: Blend(net, scale, null) for name, net in both.items()})


def guided(model: Model, grad_log_likelihood: Field, scale: float = 1.0) -> Model:
    r"""A copy of the model, sharing its parameters, whose score is :math:`\nabla\log p_t(x) + w\,\nabla\log p_t(y \mid x)`.

    Its flow and SDEs follow. Where a = 0 at the base, the state says nothing of the data, and what the pull is to a velocity
    is 0/0; the interval then begins a thousandth later. For one process alone there is
    ``sde.condition(grad_log_h)``.

    Arguments:
        model: One with a schedule.
        grad_log_likelihood: ∇_x log p_t(y | x) for the noised x, a function of (t, x) on the model's clock.
        scale: w.

    Raises:
        ArgumentError: The model has no score by conversion.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233

    Example:
        >>> model = sf.models.FlowMatching(lambda t, x: 0 * x, sf.paths.LinearPath().base((2,)))
        >>> x = torch.zeros(1, 2)
        >>> pulled = sf.models.guided(model, lambda t, x: torch.ones_like(x))
        >>> pulled.score(0.5, x) - model.score(0.5, x)
        tensor([[1., 1.]])
    """
    if model.schedule is None:
        raise ArgumentError(
            f"{type(model).__name__} has no schedule, so an addition to its score is none to its {model.predicts}: "
            f"{model.no_schedule}. Guide its SDE instead: model.sde(epsilon).condition(grad_log_h)."
        )
    if not callable(grad_log_likelihood):
        raise ArgumentError(f"grad_log_likelihood is {grad_log_likelihood!r}; give a function of (t, x).")
    twin = _with_nets(model, net=Pulled(model, grad_log_likelihood, finite_number("scale", scale)))
    start, end = twin.interval
    if twin.data_at == "end" and not model.schedule.a(torch.tensor(start, dtype=torch.float64)) > 0:
        twin.interval = (start + CUT * (end - start), end)
    return twin


def drop_conditions(
    condition: dict[str, Tensor], null: dict[str, Any], probability: float = 0.1, *, seed: int | None = None
) -> dict[str, Tensor]:
    """The conditions of a batch with those of random rows replaced, all of a row together: training for guidance.

    Arguments:
        condition: Tensors with one row per sample.
        null: What stands for none, for each of them.
        probability: Of a row to lose its conditions.
        seed: As everywhere.

    Example:
        >>> label = torch.arange(6)
        >>> sf.models.drop_conditions({"label": label}, {"label": -1}, 0.5, seed=1)["label"].shape
        torch.Size([6])
    """
    if not 0 <= finite_number("probability", probability) <= 1:
        raise ArgumentError(f"probability={probability!r} is not between 0 and 1.")
    if set(condition) != set(null) or not condition:
        raise ArgumentError(f"the conditions are {sorted(condition)} and null has {sorted(null)}; give the same names.")
    rows = {len(value) for value in condition.values()}
    if len(rows) != 1:
        raise ArgumentError(f"the conditions have {sorted(rows)} rows; give one row per sample in each.")
    some = next(iter(condition.values()))
    lost = Draws(seed).uniforms(Purpose.CHOICE, (rows.pop(),), some.device) < probability
    return {
        name: torch.where(
            lost.reshape(-1, *[1] * (value.ndim - 1)),
            torch.as_tensor(null[name], dtype=value.dtype, device=value.device),
            value,
        )
        for name, value in condition.items()
    }


def _with_nets(model: Model, **nets: nn.Module) -> Model:
    """A copy of the model with other networks; the modules that both have are shared."""
    twin = copy(model)
    twin._modules = dict(model._modules)
    for name, net in nets.items():
        twin.__dict__.pop(name, None)
        setattr(twin, name, net)
    return twin
