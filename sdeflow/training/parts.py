"""The parts of a recipe: what a name and its numbers stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LogNormal, MultivariateNormal, Normal

from sdeflow.data import eight_gaussians
from sdeflow.errors import ArgumentError, choose, nearest
from sdeflow.models.times import TIME_LAWS, TimeLaw
from sdeflow.networks import MLP, UNet
from sdeflow.paths import (
    CosinePath,
    EDMPath,
    KarrasSchedule,
    LinearPath,
    PairPath,
    SubVariancePreservingPath,
    VarianceExplodingPath,
    VariancePreservingPath,
)
from sdeflow.paths.couplings import COUPLINGS
from sdeflow.processes import (
    BrownianMotion,
    CosineVariancePreserving,
    GeometricBrownianMotion,
    OrnsteinUhlenbeck,
    Schedule,
    ScheduledDiffusion,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from sdeflow.training.own import is_place, object_at

__all__ = ["FITS", "PARTS", "check_options", "component"]

Maker = Callable[..., Any]
Numbers = float | Sequence[Any]


def normal(
    event: tuple[int, ...], deviation: Numbers = 1.0, mean: Numbers = 0.0, covariance: Sequence[Any] | None = None
) -> Distribution:
    """A normal law: with a deviation for all coordinates or one for each, or with a covariance."""
    centre = _for_event("mean", mean, event)
    if covariance is not None:
        return MultivariateNormal(centre, torch.tensor(covariance))
    spread = _for_event("deviation", deviation, event)
    if not bool((spread > 0).all()):
        raise ArgumentError(f"deviation={deviation!r} of the base 'normal': give numbers > 0.")
    return Independent(Normal(centre, spread), len(event))


def log_normal(event: tuple[int, ...], deviation: Numbers = 1.0, location: Numbers = 0.0) -> Distribution:
    """The law of e^y where the coordinates of y are normal."""
    law = LogNormal(
        _for_event("location", location, event), _for_event("deviation", deviation, event), validate_args=False
    )
    return Independent(law, len(event), validate_args=False)


def ring(event: tuple[int, ...], radius: float = 2.0, sd: float = 0.2) -> Distribution:
    """Eight normal laws around a circle in the plane."""
    if event != (2,):
        raise ArgumentError(f"the base 'eight-gaussians' is a law of points in the plane, and an event is {event}.")
    return eight_gaussians(radius, sd)


def elucidated(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> ScheduledDiffusion:
    """Noise of deviation σ on Karras's clock, from 0 to 1: equal steps in it are his grid."""
    return ScheduledDiffusion(KarrasSchedule(sigma_min, sigma_max, rho).flip((0.0, 1.0)))


class Levels(TimeLaw):
    """One of some times, evenly spaced from one end of the interval to the other, each as often.

    On the clock of ``"ve"`` they are the geometric noise levels of NCSN, on that of ``"vp"`` the linear β of DDPM. A
    fixed-step solve with ``count − 1`` steps looks at them and at no other time.

    Arguments:
        count: How many, at least 2.
    """

    ends = True

    def __init__(self, count: int = 10, *, stratified: bool = False) -> None:
        super().__init__(stratified=stratified)
        if isinstance(count, bool) or not isinstance(count, int) or count < 2:
            raise ArgumentError(f"count={count!r} of the levels is not a whole number ≥ 2.")
        self.count = count

    def quantile(
        self, u: Tensor, interval: tuple[float, float], schedule: Schedule | None
    ) -> tuple[Tensor, Tensor | float]:
        which = (u * self.count).long().clamp_max(self.count - 1)
        return torch.linspace(*interval, self.count, dtype=u.dtype, device=u.device)[which], 1.0


# In the order in which they are made: a base may be that of its path.
PARTS: dict[str, dict[str, Maker]] = {
    "network": {"mlp": MLP, "unet": UNet},
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
        "edm": elucidated,
        "ou": OrnsteinUhlenbeck,
        "brownian": BrownianMotion,
        "gbm": GeometricBrownianMotion,
    },
    "base": {"normal": normal, "log-normal": log_normal, "eight-gaussians": ring},
    "time": {**TIME_LAWS, "levels": Levels},
    "coupling": {**COUPLINGS},
}
OF_EVENTS = ("network", "base")  # made for events of a shape
GIVEN = ("self", "net", "action", "score_net", "event", "event_shape", "shape", "scalar", *PARTS)  # by none but build


def component(part: str, given: Any, event: tuple[int, ...], **others: Any) -> Any:
    """A part by its name and numbers: a string, or a dictionary of a ``"name"`` and its numbers.

    Raises:
        ArgumentError: The name or a number is unknown, or what a user's own module has by that name is no such part.
    """
    numbers = {"name": given} if isinstance(given, str) else dict(given)
    name = numbers.pop("name", None)
    maker = _own(part, name) if is_place(name) else PARTS[part][choose(part, name, PARTS[part])]
    check_options(name, maker, numbers)
    try:
        return maker(event, **numbers, **others) if part in OF_EVENTS else maker(**numbers)
    except (TypeError, ValueError) as error:
        if isinstance(error, ArgumentError) or is_place(name):
            raise
        raise ArgumentError(f"{part} {name!r} cannot be made of {numbers or 'no numbers'}: {error}") from None


def check_options(name: str, maker: Maker, options: Mapping[str, Any]) -> None:
    """Refuse an option that a maker does not take."""
    taken = inspect.signature(maker).parameters
    known = [word for word in taken if word not in GIVEN]
    for option in options:
        if option in taken and option in PARTS:
            raise ArgumentError(f"{option!r} is a part of {name!r} and no option: say it beside its kind.")
        if option not in known:
            words = [*known, *(word for word in taken if word in PARTS)]
            raise ArgumentError(f"{option!r} is no option of {name!r}. {nearest(option, words)}")


def _own(part: str, place: str) -> Maker:
    """The maker of a user's own part: a function, or a class; an object where it is the same in every model."""
    found = object_at(place)
    if inspect.isfunction(found) or inspect.isclass(found):
        made: Maker = found
        return made
    if part == "network":
        raise ArgumentError(
            f"{place} is {type(found).__name__}; for a network name a function or a class that makes one for the shape "
            f"of an event."
        )
    return (lambda event: found) if part in OF_EVENTS else lambda: found


def _for_event(name: str, value: Numbers, event: tuple[int, ...]) -> Tensor:
    """Numbers for each coordinate of an event."""
    try:
        return torch.as_tensor(value, dtype=torch.get_default_dtype()).expand(event).clone()
    except (RuntimeError, TypeError, ValueError):
        raise ArgumentError(f"{name}={value!r} of the base does not fit an event of shape {event}.") from None


# --- laws that fit points ----------------------------------------------------------------------------------------------

WHOLE = 32  # coordinates up to which a covariance is kept


def fit_normal(x: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": x.mean(0).tolist()}
    if x.ndim == 2 and 1 < x.shape[1] <= WHOLE:
        return {**found, "covariance": torch.cov(x.mT).tolist()}
    return {**found, "deviation": x.std(0).tolist()}


def fit_log_normal(x: Tensor) -> dict[str, Any]:
    if not bool((x > 0).all()):
        raise ArgumentError(
            f"the base 'log-normal' is a law of positive numbers, and {int((x <= 0).flatten(1).any(1).sum())} of {len(x)} "
            f"points have others; take 'normal'."
        )
    return {"location": x.log().mean(0).tolist(), "deviation": x.log().std(0).tolist()}


FITS: dict[str, Callable[[Tensor], dict[str, Any]]] = {"normal": fit_normal, "log-normal": fit_log_normal}
"""The numbers of a base from points ``(n, *event)``."""
